from pathlib import Path

import pytest

from unlearn_ray.config import RunConfig, load_config
from unlearn_ray.errors import InputError

MINIMAL = """
root: runs/test
baseline: some/model
forget_sets: [{name: alice, documents: alice.txt}]
"""


@pytest.fixture
def load(tmp_path: Path):
    def load(*overrides: str, text: str = MINIMAL) -> RunConfig:
        (tmp_path / "run.yaml").write_text(text)
        return load_config(tmp_path / "run.yaml", overrides)

    return load


def test_a_minimal_run_has_the_documented_defaults(load):
    config = load()
    assert config.forget_sets[0].documents == ("alice.txt",)
    assert (config.label.alpha, config.label.block_tokens, config.label.top_k) == ((5.0,), 512, 64)
    assert (config.reinforce.learning_rate, config.unlearn.learning_rate) == (3e-6, 1e-6)
    assert config.anchors.dictionary is None and config.resources.gpus_per_worker == "auto"


def test_overrides_are_yaml_and_reach_nested_keys(load):
    config = load(
        "label.alpha=[2.5,5]", "reinforce.learning_rate=3e-5", "reinforce.adapter={rank: 8}", "retain=a/*.txt"
    )
    assert config.label.alpha == (2.5, 5.0)
    assert config.reinforce.learning_rate == 3e-5
    assert config.reinforce.adapter is not None and config.reinforce.adapter.rank == 8
    assert config.retain == ("a/*.txt",)


def test_a_configuration_cannot_be_changed(load):
    with pytest.raises(ValueError, match="frozen"):
        load().seed = 1


def test_unlearning_takes_the_first_alpha_unless_told(load):
    assert load("label.alpha=[2.5,5]").unlearn_alpha == 2.5
    assert load("label.alpha=[2.5,5]", "unlearn.alpha=5").unlearn_alpha == 5


def test_evaluation_falls_back_on_the_retain_files(load):
    assert load("retain=[a.txt, b.txt]").evaluation_retain == ("a.txt", "b.txt")
    assert load("retain=a.txt", "evaluate.retain=c.txt").evaluation_retain == ("c.txt",)


MISTAKES = {
    "label.alfa=3": "label.alfa: unknown key, the nearest known one is alpha",
    "bseline=x": "bseline: unknown key, the nearest known one is baseline",
    "reinforce.adapter={rnk: 3}": "reinforce.adapter.rnk: unknown key, the nearest known one is rank",
    "forget_sets=[{nam: a, documents: x}]": "forget_sets.0.nam: unknown key, the nearest known one is name",
    "forget_sets=[{name: a}]": "forget_sets.0.documents: missing",
    "forget_sets=[{name: ../a, documents: x}]": "forget_sets.0.name: .*'../a'",
    'forget_sets=[{name: "a\\n", documents: x}]': "forget_sets.0.name: ",
    "forget_sets=[{name: shared, documents: x}]": "shared is taken",
    "forget_sets=[{name: a, documents: x}, {name: A, documents: y}]": "names must differ.*: a",
    "forget_sets=[{name: a, documents: []}]": "forget_sets.0.documents: give at least one",
    "forget_sets=nothing-*.txt": "no local file matches nothing-",
    "label.alpha=[-1]": r"label.alpha.0: should be greater than or equal to 0 \(got -1\)",
    "label.alpha=[]": "label.alpha: give at least one",
    "label.alpha=[5, 5.0]": "label.alpha: each strength once",
    "label.consistency=strict": "label.consistency: should be 'restore' or 'paper'",
    "unlearn.alpha=3": "unlearn.alpha: 3 is not one of label.alpha",
    "label.top_k=0": "unlearn.targets: soft labels need label.top_k",
    "unlearn.learning_rate=.nan": "unlearn.learning_rate: should be a finite number",
    "unlearn.epochs=2.5": "unlearn.epochs: .*integer",
    "seed=true": "seed: should be a valid integer",
    "seed='3'": "seed: should be a valid integer",
    "baseline=": "baseline: should be a valid string",
    "label=3": "label: should be a mapping of keys",
    "mode=joint": "mode: not available yet",
    "mode=both": "mode: expected separate",
    "anchors.source=gpt": "anchors.source: should be 'offline' or 'openai'",
    "anchors.source=openai": "anchors: source: openai needs the name of a model",
    "anchors={source: openai, model: m, proposals: p.jsonl}": "anchors: a file of proposals leaves no use for model",
    "anchors.passages=10": "anchors: source: offline leaves no use for passages",
    "evaluate.prompts.source=openai": "evaluate.prompts: source: openai needs the name of a model",
    "evaluate.prompts={file: p.jsonl, model: m}": "evaluate.prompts: a file of prompts leaves no use for model",
    "evaluate.prompts.answer_tokens=9": "evaluate.prompts: source: documents leaves no use for answer_tokens",
    "evaluate.judge.source=openai": "evaluate.judge: source: openai needs the name of a model",
    "evaluate.judge.model=m": "evaluate.judge: source: dictionary leaves no use for model",
    "resources.endpoint.api_key=sk-1": "resources.endpoint.api_key: unknown key",
    "anchors={source: offline, dictionary: d.jsonl}": "anchors: a dictionary leaves no use for source",
    "evaluate.benchmarks.tasks=mmlu": "evaluate.benchmarks.tasks.0: should be 'arc_challenge', 'arc_easy', 'boolq'",
    "resources.gpus_per_worker=2": "resources.gpus_per_worker: should be 0, 1 or 'auto'",
    "root.x=3": "root has no keys of its own",
    "label.alpha": "expected KEY=VALUE",
    "label.=3": "expected KEY=VALUE",
    "label.alpha=[": "not valid YAML",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(load, override):
    with pytest.raises(InputError, match=MISTAKES[override]) as raised:
        load(override)
    assert "\n" not in str(raised.value)


def test_averaged_weights_and_deepspeed_exclude_each_other(load):
    with pytest.raises(InputError, match=r"unlearn\.average_share: no process has whole weights"):
        load("resources.deepspeed=zero2.json", "unlearn.average_share=0.5")


def test_a_missing_or_broken_file_is_named(load, tmp_path):
    with pytest.raises(InputError, match=r"absent\.yaml: cannot read"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"run\.yaml: not valid YAML"):
        load(text="root: [")
    with pytest.raises(InputError, match=r"run\.yaml: expected a mapping"):
        load(text="- root")


def test_forget_sets_as_a_glob_are_one_set_a_file(load, tmp_path):
    for name in ("Peter Pan.txt", "alice[1].txt", "notes.md"):
        (tmp_path / name).write_text("text")
    config = load(f"forget_sets={tmp_path}/*.txt")
    assert [one.name for one in config.forget_sets] == ["Peter-Pan", "alice-1"]
    # The name of a file is no pattern.
    assert config.forget_sets[1].documents == (f"{tmp_path}/alice[[]1].txt",)


def test_forget_sets_as_a_jsonl_file_are_one_set_a_line(load, tmp_path):
    sets = tmp_path / "sets.jsonl"
    sets.write_text('{"name": "a", "documents": "a.txt"}\n\n{"name": "b", "documents": ["b.txt", "c/*.txt"]}\n')
    config = load(f"forget_sets={sets}")
    assert [(one.name, one.documents) for one in config.forget_sets] == [
        ("a", ("a.txt",)),
        ("b", ("b.txt", "c/*.txt")),
    ]
    sets.write_text('{"name": "a"\n')
    with pytest.raises(InputError, match=r"sets\.jsonl line 1 is not JSON"):
        load(f"forget_sets={sets}")
