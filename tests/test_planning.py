"""What a run will need, checked against arithmetic by hand, a real layer, and the settings that a refusal names."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_ray.cli import main
from unlearn_ray.config import Resources, load_config
from unlearn_ray.errors import InputError
from unlearn_ray.models import decoder
from unlearn_ray.planning import (
    ScoringJob,
    TrainingJob,
    Zero,
    activation_bytes,
    layer_bytes,
    scoring_bytes,
    shape_of,
    state_bytes,
    training_host_bytes,
)
from unlearn_ray.stages.finetune import layout_of
from unlearn_ray.stages.plan import make_plan, zero_of

CONFIGS = Path(__file__).parents[1] / "configs"
SEVEN_B = LlamaConfig(
    vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
)
SEVENTY_B = LlamaConfig(
    vocab_size=32000,
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
)
ONE_GPU = TrainingJob(
    block_tokens=512, workers=1, micro_batch=4, checkpointing=False, zero=None, rank=None, averaged=False, bf16=True
)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """given("paper.yaml", SEVEN_B, *overrides): the path and the overrides that plan it, with a model of which only
    config.json is there, and 40 blocks of text.
    """
    monkeypatch.chdir(CONFIGS.parent)

    def given(name: str, model: LlamaConfig, *overrides: str) -> list[str]:
        model.save_pretrained(tmp_path / "model")
        (tmp_path / "text.txt").write_text("four" * 512 * 40)
        sets, text = f"forget_sets=[{{name: a, documents: {tmp_path}/text.txt}}]", f"{tmp_path}/text.txt"
        ours = [f"baseline={tmp_path}/model", sets, f"evaluate.retain={text}", f"root={tmp_path}"]
        if load_config(CONFIGS / name).retain:
            ours.append(f"retain={text}")
        return [str(CONFIGS / name), *ours, *overrides]

    return given


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def plan(arguments: list[str], memory_gb: float):
    return make_plan(load_config(arguments[0], arguments[1:]), memory_gb=memory_gb, probe=False)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_configuration_loads_without_its_documents(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(file).baseline


@pytest.mark.parametrize(
    ("name", "model", "memory"),
    [("llama-2-7b-8gpu.yaml", SEVEN_B, 80), ("llama-70b.yaml", SEVENTY_B, 80), ("lora.yaml", SEVEN_B, 24)],
)
def test_the_shipped_configurations_fit_what_they_are_made_for(given, name, model, memory):
    result = call(*given(name, model), "--memory", str(memory))
    assert result.exit_code == 0, result.output
    assert "TOO LITTLE" not in result.output and "times: not estimated" in result.output


def test_the_paper_on_one_gpu_of_80_gb_is_refused_with_a_setting_that_fits(given):
    result = call(*given("paper.yaml", SEVEN_B), "--memory", "80")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert re.match(r"error: reinforced needs 152\.\d GB a device, which has 80.0 GB \(7\d\.\d GB with ", result.stderr)
    assert "40 blocks of 512 tokens" in result.stdout and "characters / 4" in result.stdout
    assert "3 optimiser steps" in result.stdout and "2 optimiser steps" in result.stdout
    assert call(*given("paper.yaml", SEVEN_B), "--memory", "192").exit_code == 0


@pytest.mark.parametrize(
    ("name", "model"), [("paper.yaml", SEVEN_B), ("lora.yaml", SEVEN_B), ("paper.yaml", SEVENTY_B)]
)
@pytest.mark.parametrize("memory", [6, 10, 16, 24, 40, 80, 141])
def test_the_settings_that_a_refusal_names_make_the_stage_fit(given, name, model, memory):
    arguments = given(name, model)
    for refused in [stage for stage in plan(arguments, memory).stages if stage.fits_with]:
        assert refused.fits_with in refused.refusal
        stages = plan([*arguments, *shlex.split(refused.fits_with)], memory).stages
        [after] = [stage for stage in stages if stage.stage == refused.stage]
        assert not after.refusal and after.memory < refused.memory


@pytest.mark.parametrize(("model", "billions"), [(SEVEN_B, 6.738), (SEVENTY_B, 68.977)])
def test_parameters_are_those_of_the_published_models(model, billions):
    assert shape_of(model).parameters / 1e9 == pytest.approx(billions, abs=0.001)


def test_training_all_weights_on_one_device_takes_18_bytes_a_parameter():
    assert state_bytes(shape_of(SEVEN_B), ONE_GPU) == 18 * 6738415616  # 121 GB


def test_checkpointing_needs_the_copies_of_one_layer_at_a_time():
    job = replace(ONE_GPU, checkpointing=True)
    assert state_bytes(shape_of(SEVEN_B), job) == (16 + 2 / 32) * 6738415616


def test_float32_hardware_needs_no_copies():
    assert state_bytes(shape_of(SEVEN_B), replace(ONE_GPU, bf16=False)) == 16 * 6738415616


@pytest.mark.parametrize(
    ("zero", "bytes_a_parameter"),
    [(Zero(1), 6 + 4 + 12 / 8), (Zero(2), 6 + 16 / 8), (Zero(3), 2 + 20 / 8), (Zero(3, True, True), 2 + 4 / 8)],
)
def test_zero_divides_by_its_stage(zero, bytes_a_parameter):
    job = replace(ONE_GPU, zero=zero, workers=8)
    gathered = 4e9 if zero.stage == 3 else 0
    assert state_bytes(shape_of(SEVEN_B), job) == pytest.approx(bytes_a_parameter * 6738415616 + gathered + 2e9)


def test_an_adapter_trains_its_rank_times_the_widths_of_the_linear_layers():
    # 7B: q, k, v, o 4096 + 4096 each, gate and up 4096 + 11008, down 11008 + 4096, in 32 layers
    trained = 16 * 32 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert shape_of(SEVEN_B).trained(16) == trained
    job = replace(ONE_GPU, rank=16)
    assert state_bytes(shape_of(SEVEN_B), job) == 2 * 6738415616 + 16 * trained


def test_saving_takes_the_state_and_the_weights_on_the_first_host():
    assert training_host_bytes(shape_of(SEVEN_B), ONE_GPU) == 16 * 6738415616
    divided = replace(ONE_GPU, zero=Zero(2), workers=8)
    assert training_host_bytes(shape_of(SEVEN_B), divided) == (12 / 8 + 4) * 6738415616


def test_labelling_holds_two_models_or_one_with_an_adapter_over_its_gpus():
    two = ScoringJob(models=2, block_tokens=512, batch=1, gpus=1, rank=None, bf16=True)
    one = replace(two, rank=16)
    spread = replace(two, gpus=4)
    shape = shape_of(SEVEN_B)
    assert scoring_bytes(shape, two) / 1e9 == pytest.approx(4 * 6.74, abs=0.6)
    assert scoring_bytes(shape, one) / 1e9 == pytest.approx(2 * 6.74, abs=0.6)
    assert scoring_bytes(shape, spread) / 1e9 == pytest.approx(6.74, abs=0.6)


@pytest.mark.parametrize("keys", [4, 2])
@pytest.mark.parametrize("bf16", [True, False])
def test_a_real_layer_keeps_about_what_is_planned(bf16, keys):
    config = LlamaConfig(
        vocab_size=100, hidden_size=256, intermediate_size=688, num_attention_heads=4, num_key_value_heads=keys
    )
    job = replace(ONE_GPU, bf16=bf16)
    one, three = (saved_bytes_a_token(config, layers, job) for layers in (1, 3))
    assert layer_bytes(shape_of(config), job) == pytest.approx((three - one) / 2, rel=0.2)


def saved_bytes_a_token(config: LlamaConfig, layers: int, job: TrainingJob) -> float:
    """Of the activations that autograd keeps, each storage once; weights and their copies do not grow with tokens."""

    def saved(tokens: int) -> int:
        config.num_hidden_layers = layers
        model = LlamaForCausalLM(config)
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        autocast = torch.autocast("cpu", torch.bfloat16, enabled=job.bf16)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            hidden = decoder(model)(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
        assert hidden.last_hidden_state.requires_grad
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    return (saved(96) - saved(32)) / 64


def test_checkpointing_keeps_the_inputs_of_layers_and_one_layer():
    shape, tokens = shape_of(SEVEN_B), 4 * 512
    assert activation_bytes(shape, ONE_GPU) == tokens * 32 * (34 * 4096 + 8 * 11008)
    job = replace(ONE_GPU, checkpointing=True)
    assert activation_bytes(shape, job) == tokens * (32 * 4 * 4096 + 34 * 4096 + 8 * 11008)


def test_deepspeed_settings_are_read_or_named(tmp_path, given):
    read = lambda name: zero_of(layout_of(Resources(deepspeed=str(CONFIGS / "deepspeed" / name))))
    assert (read("zero3-offload.json"), read("zero2.json")) == (Zero(3, True, True), Zero(2))
    assert zero_of(layout_of(Resources())) is None
    (tmp_path / "bad.json").write_text("{")
    for file in ("bad.json", "absent.json"):
        with pytest.raises(InputError, match=file):
            plan(given("paper.yaml", SEVEN_B, f"resources.deepspeed={tmp_path / file}"), 80)


def test_joint_forgetting_trains_once_on_all_sets(given, tmp_path):
    two = [{"name": name, "documents": f"{tmp_path}/text.txt"} for name in ("a", "b")]
    arguments = given("paper.yaml", SEVEN_B, f"forget_sets={json.dumps(two)}", "unlearn.global_batch=32")
    separate, joint = (plan([*arguments, f"mode={mode}"], 80).steps["unlearned"] for mode in ("separate", "joint"))
    # 40 blocks a set: two steps an epoch for each, three for both together.
    epochs = load_config(arguments[0], arguments[1:]).unlearn.epochs
    assert (separate, joint) == (f"{4 * epochs:g} optimiser steps", f"{3 * epochs:g} optimiser steps")


def test_a_sequence_asks_every_model_about_all_sets_before(given, tmp_path):
    three = [{"name": name, "documents": f"{tmp_path}/text.txt"} for name in ("a", "b", "c")]
    arguments = given("paper.yaml", SEVEN_B, f"forget_sets={json.dumps(three)}")
    separate, sequential = (
        plan([*arguments, f"mode={mode}"], 80).steps["evaluation"] for mode in ("separate", "sequential")
    )
    assert sequential == f"{separate}, 3 examinations of earlier sets"


def test_a_gpu_that_is_not_here_must_be_described(given, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = call(*given("paper.yaml", SEVEN_B))
    assert result.exit_code == 2 and "--memory GB" in result.stderr


def test_a_small_run_on_this_machine_is_timed_by_the_probe(write_run, tmp_path):
    run = str(write_run(tmp_path))
    result = call(run, "--probe")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    for stage in ("reinforced", "labels", "retain", "unlearned", "evaluation"):
        assert rows[stage].endswith(" s")
    assert "this machine's memory" in result.stdout and "the baseline's tokenizer" in result.stdout
    assert "times: measured on 1 CPU thread" in result.stdout
