"""One fine-tuning in every layout, on real processes: the same losses, the same weights, and a resume that nobody
sees.
"""

import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unlearn_ray.errors import InputError
from unlearn_ray.models import load_model, load_tokenizer, save_checkpoint
from unlearn_ray.training.layout import Layout, check_layout, make_accelerator, read_deepspeed

PROGRAM = Path(__file__).with_name("training_process.py")
ZERO = {stage: {"deepspeed": {"zero_optimization": {"stage": stage}}} for stage in (1, 2, 3)}
# Without DeepSpeed's own optimiser for CPUs, which compiles itself for a minute.
OFFLOADED = {
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}},
    "zero_force_ds_cpu_optimizer": False,
}


def killed_and_resumed(name: str, layout: dict) -> dict[str, dict]:
    """A run that is given up after step 8 leaves the state of step 5 behind, and the one after it goes on from
    there.
    """
    layout = layout | {"saves": f"{name}-again"}
    return {f"{name}-killed": layout | {"stop_after": 8}, f"{name}-resumed": layout}


RUNS = {
    "ddp": {},
    **killed_and_resumed("ddp", {}),  # before the others: a process that has used DeepSpeed cannot go back
    "ddp-lora": {"lora": True},
    "ddp-bfloat16": {"dtype": "bfloat16"},
    "zero1": ZERO[1],
    "zero2": ZERO[2],
    **killed_and_resumed("zero2", ZERO[2]),
    "zero3": ZERO[3],
    **killed_and_resumed("zero3", ZERO[3]),
    "zero3-lora": ZERO[3] | {"lora": True, "activation_checkpointing": True},
    "zero3-offloaded": {"deepspeed": OFFLOADED, "activation_checkpointing": True},
    "zero3-bfloat16": ZERO[3] | {"dtype": "bfloat16"},
}


@pytest.fixture(scope="module")
def train_in_processes(tmp_path_factory, tiny_model_folder) -> Callable[[int, dict], Path]:
    """train_in_processes(world, runs): the folder with what training_process.py leaves of 20 steps."""
    rng = random.Random(0)
    blocks = [[rng.randrange(2, 250) for _ in range(rng.randint(20, 40))] for _ in range(19)]
    settings = {"epochs": 4, "learning_rate": 1e-3, "global_batch": 4, "seed": 0, "warmup_share": 0.2}

    def run(world: int, runs: dict) -> Path:
        out = tmp_path_factory.mktemp("layouts")
        job = {"model": tiny_model_folder, "blocks": blocks, "settings": settings}
        (out / "job.json").write_text(json.dumps(job | {"out": str(out), "runs": runs}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [sys.executable, str(PROGRAM), str(out / "job.json")]
        processes = [
            subprocess.Popen(
                [*command, str(rank), str(world), port], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for rank in range(world)
        ]
        for process in processes:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
        return out

    return run


@pytest.fixture(scope="module")
def alone(train_in_processes) -> Path:
    return train_in_processes(1, {"ddp": {}, "ddp-small": {"micro_batch": 1, "activation_checkpointing": True}})


@pytest.fixture(scope="module")
def together(train_in_processes) -> Path:
    return train_in_processes(2, RUNS)


def losses(folder: Path, name: str) -> list[float]:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["ddp", "zero1", "zero2", "zero3", "zero3-offloaded"])
def test_two_processes_of_any_layout_train_like_one(alone, together, name):
    assert len(losses(together, name)) == 20
    assert losses(together, name) == pytest.approx(losses(alone, "ddp"), rel=1e-5)
    expected, got = load_file(alone / "ddp.safetensors"), load_file(together / f"{name}.safetensors")
    assert expected.keys() == got.keys()
    for weight in expected:
        torch.testing.assert_close(got[weight], expected[weight], rtol=0, atol=1e-4)  # Adam turns rounding into steps


def test_micro_batches_and_activation_checkpointing_change_nothing(alone):
    assert losses(alone, "ddp-small") == pytest.approx(losses(alone, "ddp"), rel=1e-5)


def test_an_adapter_is_trained_alike_with_and_without_deepspeed(together):
    assert losses(together, "zero3-lora") == pytest.approx(losses(together, "ddp-lora"), rel=1e-5)
    assert losses(together, "ddp-lora") != pytest.approx(losses(together, "ddp"), rel=1e-5)
    assert all("lora" in weight for weight in load_file(together / "zero3-lora.safetensors"))


@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3"])
def test_a_resumed_training_ends_with_the_bytes_of_an_undisturbed_one(together, name):
    assert not (together / f"{name}-killed.json").exists()
    assert losses(together, f"{name}-resumed") == losses(together, name)
    assert (together / f"{name}-resumed.safetensors").read_bytes() == (together / f"{name}.safetensors").read_bytes()


def test_only_the_newest_two_states_are_kept(together):
    assert sorted(folder.name for folder in (together / "saves" / "zero3").iterdir()) == ["step-10", "step-15"]


def test_the_weights_of_zero_3_make_an_ordinary_checkpoint(alone, together, tiny_model_folder, tmp_path):
    save_checkpoint(
        load_model(tiny_model_folder),
        load_tokenizer(tiny_model_folder),
        str(tmp_path),
        load_file(together / "zero3.safetensors"),
    )
    expected = load_model(tiny_model_folder)
    expected.load_state_dict(load_file(alone / "ddp.safetensors"), strict=False)
    ids = torch.tensor([[5, 80, 33, 7, 90]])
    torch.testing.assert_close(load_model(str(tmp_path))(ids).logits, expected(ids).logits, rtol=1e-4, atol=1e-4)


def test_bfloat16_arithmetic_is_the_same_with_and_without_deepspeed(together):
    expected = losses(together, "ddp-bfloat16")
    assert losses(together, "zero3-bfloat16")[:5] == pytest.approx(expected[:5], rel=1e-3)
    assert expected[:5] != pytest.approx(losses(together, "ddp")[:5], rel=1e-6)


MISTAKES = {
    "{": "expected JSON with",
    "[]": "expected JSON with",
    '{"zero_optimization": {}}': "expected JSON with",
    '{"zero_optimization": {"stage": 0}}': r"stage is 1, 2 or 3 \(got 0\)",
    '{"zero_optimization": {"stage": 2}, "gradient_clipping": 1}': "gradient_clipping: comes from the run",
    '{"zero_optimization": {"stage": 2}, "optimizer": {}, "bf16": {}}': "optimizer, bf16: comes from the run",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_settings_of_deepspeed_that_cannot_be_used_are_refused(text):
    with pytest.raises(InputError, match=rf"zero\.json: .*{MISTAKES[text]}"):
        read_deepspeed(text, "zero.json")


@pytest.mark.parametrize("file", sorted(Path("configs/deepspeed").glob("*.json")), ids=lambda file: file.stem)
def test_the_settings_that_come_along_can_be_used(file):
    layout = Layout(deepspeed=read_deepspeed(file.read_text(), str(file)))
    assert f"zero{layout.zero_stage}" in file.stem
    assert layout.optimizer_on_host == ("offload" in file.stem)


def test_a_silent_fall_back_on_another_layout_is_an_error(new_accelerate):
    accelerator = make_accelerator(Layout(), max_grad_norm=1.0, processes=1)
    check_layout(torch.nn.Linear(2, 2), Layout(), accelerator)
    with pytest.raises(RuntimeError, match="asked for ZeRO stage 2, got Linear of stage 0"):
        check_layout(torch.nn.Linear(2, 2), Layout(deepspeed=ZERO[2]["deepspeed"]), accelerator)
    with pytest.raises(RuntimeError, match="accelerate sees 1 of 2 processes"):
        make_accelerator(Layout(), max_grad_norm=1.0, processes=2)
