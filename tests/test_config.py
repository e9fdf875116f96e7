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
    "label.recitation_cap=0": "label.recitation_cap: should be greater than 0",
    "unlearn.learning_rate=.nan": "unlearn.learning_rate: should be a finite number",
    "unlearn.epochs=0": "unlearn.epochs: should be greater than 0",
    "unlearn.global_batch=2.5": "unlearn.global_batch: .*integer",
    "seed=true": "seed: should be a valid integer",
    "seed='3'": "seed: should be a valid integer",
    "baseline=": "baseline: should be a valid string",
    "label=3": "label: should be a mapping of keys",
    "mode=both": "mode: should be 'separate', 'joint' or 'sequential'",
    "forget_sets=[{name: Joint, documents: x}]": "joint is taken",
    "forget_sets=[{name: a, documents: x, deadline: soon}]": "forget_sets.0.deadline: Invalid isoformat",
    "forget_sets=[{name: a, documents: x, priority: high}]": "forget_sets.0.priority: .*integer",
    "resources.parallel_sets=0": "resources.parallel_sets: ",
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


def test_a_cap_and_hard_labels_exclude_each_other(load):
    with pytest.raises(InputError, match=r"label\.recitation_cap: only soft labels"):
        load("unlearn.targets=hard", "label.recitation_cap=0.1")


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


def test_sets_of_a_glob_over_folders_have_names_that_differ_and_stay(load, tmp_path):
    files = ["a/book.txt", "b/book.txt", "b/other one.txt", "b/other-one.txt", "深/書.txt", "c/" + "x" * 120 + ".txt"]
    for file in files[:3]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("text")
    names = lambda: [one.name for one in load(f"forget_sets={tmp_path}/**/*.txt").forget_sets]
    assert names() == ["a-book", "b-book", "b-other-one"]
    for file in files[3:]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("text")
    found = names()
    assert found[:2] == ["a-book", "b-book"]  # whatever was added
    assert len({name.casefold() for name in found}) == len(files)
    assert [name[:12] for name in found[3:]] == ["b-other-one-", "c-xxxxxxxxxx", "set-" + found[5][4:12]]


def test_a_set_can_have_a_priority_and_a_deadline(load):
    first, second = load(
        "forget_sets=[{name: a, documents: x, priority: 2, deadline: 2026-12-24},"
        "{name: b, documents: y, deadline: '2026-12-24T18:00:00+01:00'}]"
    ).forget_sets
    assert (first.priority, str(first.deadline)) == (2, "2026-12-24 23:59:59+00:00")
    assert (second.priority, str(second.deadline)) == (0, "2026-12-24 18:00:00+01:00")


def test_the_first_of_many_mistakes_are_told(load, tmp_path):
    sets = tmp_path / "sets.jsonl"
    sets.write_text("".join(f'{{"name": "a{n}"}}\n' for n in range(1000)))
    with pytest.raises(InputError, match=r"forget_sets\.4\.documents: missing; and 995 more"):
        load(f"forget_sets={sets}")


def test_sequential_forgetting_needs_whole_weights(load):
    with pytest.raises(InputError, match=r"unlearn\.merge_adapter: mode sequential"):
        load("mode=sequential", "unlearn.merge_adapter=false")


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


@pytest.mark.parametrize("mode", ["separate", "joint", "sequential"])
def test_the_example_of_two_novels_loads(mode):
    config = load_config(Path(__file__).parents[1] / "configs" / "two-novels.yaml", [f"mode={mode}"])
    assert [one.name for one in config.forget_sets] == ["alice", "pride-and-prejudice"]


def test_the_example_of_many_sets_loads():
    file = Path(__file__).parents[1] / "configs" / "many.yaml"
    config = load_config(file)
    assert [one.priority for one in config.forget_sets] == [0, 0, 10] and config.resources.parallel_sets is None
    assert load_config(file, ["mode=joint"]).mode == "joint"
