"""Bad input is one line that says what is wrong, before Ray is started wherever it can be known by then."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_ray.cli import main
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError
from unlearn_ray.models import load_model
from unlearn_ray.stages.baseline import prepare_baseline


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def write(name: str, content: str | bytes) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def entries(*pairs: tuple[str, str]) -> str:
    return "".join(json.dumps({"anchor": anchor, "generic": generic}) + "\n" for anchor, generic in pairs)


def slow_tokenizer(folder: str) -> None:
    """A model folder whose tokenizer exists in Python alone: ESM's, which splits a text into its letters."""
    write(f"{folder}/config.json", '{"model_type": "esm"}')
    write(f"{folder}/tokenizer_config.json", '{"tokenizer_class": "EsmTokenizer"}')
    write(f"{folder}/vocab.txt", "<cls>\n<pad>\n<eos>\n<unk>\nL\nA\n<mask>\n")


def misfit_adapter(folder: Path, base: str) -> None:
    """An adapter trained on a model of half the width, which names `base` as its base."""
    narrow = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=600)  # fmt: skip
    adapted = get_peft_model(LlamaForCausalLM(narrow), LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(str(folder))


DICTIONARY = "anchors={dictionary: given.jsonl}"

# What is done to the sound run, the overrides, and what the line says.
CASES: dict[str, tuple[Callable[[], object], list[str], str]] = {
    "empty document": (lambda: write("story.txt", " \n\n"), [], "story.txt: the document is empty"),
    "latin-1 document": (lambda: write("story.txt", "Zoë".encode("latin-1")), [], "story.txt line 1: not UTF-8"),
    "utf-16 document": (lambda: write("story.txt", "Zorblax".encode("utf-16-le")), [], "was it UTF-16?"),
    "settings of DeepSpeed that are not there": (
        lambda: None,
        ["resources.deepspeed=z.json"],
        "z.json: no such file",
    ),
    "settings of DeepSpeed that the run sets": (
        lambda: write("z.json", '{"zero_optimization": {"stage": 2}, "optimizer": {}}'),
        ["resources.deepspeed=z.json"],
        "resources.deepspeed: z.json: optimizer: comes from the run's configuration",
    ),
    "retain text without rows": (
        lambda: write("r.jsonl", ""),
        ["retain=r.jsonl"],
        "r.jsonl: the file holds no document",
    ),
    "unknown suffix": (lambda: write("a.pdf", "x"), ["retain=a.pdf"], "a.pdf: expected a .txt, .md, .epub"),
    "no document": (lambda: Path("story.txt").unlink(), [], "story.txt: no such file"),
    "folder as document": (lambda: Path("d").mkdir(), ["retain=d"], "a folder is given as a glob"),
    "unknown key": (lambda: None, ["label.alfa=5"], "label.alfa: unknown key, the nearest known one is alpha"),
    "alpha < 0": (lambda: None, ["label.alpha=-1"], "label.alpha"),
    "no dictionary": (lambda: None, [DICTIONARY], "given.jsonl: no such file"),
    "dictionary of nothing": (lambda: write("given.jsonl", "\n"), [DICTIONARY], "given.jsonl has no entries"),
    "dictionary with an identity": (
        lambda: write("given.jsonl", entries(("Zorblax", "zorblax"))),
        [DICTIONARY],
        "the translation is the anchor itself: Zorblax -> zorblax",
    ),
    "dictionary with a cycle": (
        lambda: write("given.jsonl", entries(("Zorblax", "Millikin"), ("Millikin", "Zorblax"))),
        [DICTIONARY],
        "the translation is or contains an anchor",
    ),
    "dictionary in latin-1": (
        lambda: write("given.jsonl", entries(("Zoe", "Jane")).replace("Zoe", "Zoë").encode("latin-1")),
        [DICTIONARY],
        "given.jsonl: not UTF-8",
    ),
    "no probes": (lambda: None, ["evaluate.probes=p.jsonl"], "p.jsonl: no such file"),
    "probes that are no JSON": (lambda: write("p.jsonl", "Who?\n"), ["evaluate.probes=p.jsonl"], "p.jsonl, line 1"),
    "probe without an answer": (lambda: write("p.jsonl", '{"prompt": "a"}'), ["evaluate.probes=p.jsonl"], "line 1"),
    "control that is a number": (lambda: write("controls.jsonl", '{"prompt": 1, "answer": 2}'), [], "line 1: expected"),
    "no model": (lambda: None, ["baseline=./absent"], "./absent: no such model"),
    "no gguf": (lambda: None, ["baseline=absent.gguf"], "absent.gguf: no such file"),
    "folder without a model": (lambda: Path("m").mkdir(), ["baseline=m"], "m: no model; expected a folder with config"),
    "model without a tokenizer": (
        lambda: write("m/config.json", '{"model_type": "llama"}'),
        ["baseline=m"],
        "cannot load the tokenizer of 'm'",
    ),
    "tokenizer without offsets": (lambda: slow_tokenizer("m"), ["baseline=m"], "gives no character offsets"),
    "root under a file": (lambda: None, ["root=story.txt/runs"], "root: cannot write"),
    "root that is a file": (lambda: None, ["root=story.txt"], "root: cannot write"),
    "no forget set": (lambda: None, ["forget_sets=none*.txt"], "none*.txt"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_exit_code_2_before_ray(folder, case):
    spoil, overrides, message = CASES[case]
    spoil()
    result = call("run", "run.yaml", *overrides)
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and len(result.stderr) < 500
    assert result.exit_code == 2 and not result.stdout


def test_a_sound_run_gets_as_far_as_ray(folder):
    assert "Ray was started" in call("run", "run.yaml").stderr


def test_evaluate_refuses_a_path_without_a_model_before_ray(folder):
    result = call("evaluate", "./absent", "--config", "run.yaml")
    assert (
        result.exit_code == 2
        and result.stderr == "error: ./absent: no such model; expected a folder, a .gguf file or a hub id\n"
    )


def test_an_adapter_that_does_not_fit_its_base_is_one_line(tmp_path, tiny_model_folder):
    misfit_adapter(tmp_path, tiny_model_folder)
    with pytest.raises(InputError, match="does not fit its base model"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"base_model_name_or_path": null}'])
def test_an_adapter_without_a_base_is_one_line(tmp_path, text):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"adapter_config\.json") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_a_worker_refuses_arrives_as_one_line(local_ray, tmp_path, tiny_model_folder):
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"^cannot load the model") as caught:
        prepare_baseline(StepRun(str(tmp_path), {}), baseline=str(tmp_path / "model"), trust_remote_code=False)
    assert "\n" not in str(caught.value)
