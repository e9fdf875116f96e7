"""Which steps a run has in each mode, and which of them are the same when sets come and go. Computes nothing."""

import json

import pytest

from unlearn_ray.config import load_config
from unlearn_ray.engine.steps import Step, StepRun, with_inputs
from unlearn_ray.errors import InputError
from unlearn_ray.pipeline import steps_of


@pytest.fixture
def steps(tmp_path):
    """steps(mode, *sets, **of_each): the steps of a run with these sets, by SET/NAME."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "run.yaml").write_text(f"root: {tmp_path}/runs\nbaseline: {tmp_path}/model\nforget_sets: []\n")
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"The story of {name}.")

    def built(mode: str, *sets: str, **of_each) -> dict[str, Step]:
        named = [{"name": name, "documents": [f"{tmp_path}/{one}.txt" for one in name]} | of_each for name in sets]
        config = load_config(tmp_path / "run.yaml", [f"mode={mode}", f"forget_sets={json.dumps(named)}"])
        found = steps_of(config)
        return {f"{name}/{key}": step for name, of_set in found.items() for key, step in of_set.items()}

    return built


def same(one: dict[str, Step], other: dict[str, Step]) -> set[str]:
    return {name for name in one.keys() & other.keys() if one[name].digest == other[name].digest}


def test_in_separate_mode_a_set_more_changes_nothing(steps):
    before = steps("separate", "a", "b")
    assert same(before, steps("separate", "c", "a", "b")) == before.keys()


def test_in_a_sequence_a_set_at_the_end_changes_nothing_and_one_in_the_middle_all_after_it(steps):
    before = steps("sequential", "a", "b")
    assert same(before, steps("sequential", "a", "b", "c")) == before.keys()
    kept = same(before, steps("sequential", "a", "c", "b"))
    assert {name for name in before if name.startswith("a/")} <= kept
    assert {name for name in kept if name.startswith("b/")} == {"b/baseline", "b/blocks"}


def test_the_first_set_of_a_sequence_is_that_of_separate_mode(steps):
    separate, sequential = steps("separate", "a"), steps("sequential", "a", "b")
    assert separate.keys() - same(separate, sequential) == set()


def test_in_joint_mode_a_set_more_changes_the_training_and_what_follows_it(steps):
    before, after = steps("joint", "a", "b"), steps("joint", "a", "b", "c")
    changed = {name for name in before if name.startswith("a/")} - same(before, after)
    assert changed == {"a/united", "a/unlearned", "a/measures", "a/choice", "a/evaluation", "a/audit"}
    assert len({after[f"{name}/unlearned"].digest for name in "abc"}) == 1
    assert same(before, steps("joint", "b", "a")) == before.keys(), "the order of the sets is no part of it"


def test_priorities_deadlines_and_shared_documents_change_nothing(steps):
    before = steps("separate", "ab")
    assert same(before, steps("separate", "ab", "bc", priority=7, deadline="2026-12-24")) == before.keys()


def test_one_of_several_sets_without_documents_is_a_step_that_fails_and_an_only_one_is_refused(steps):
    blocks = steps("separate", "a", "x")["x/blocks"]
    with pytest.raises(InputError, match="no such file"):
        blocks.run(StepRun("", {}))
    with pytest.raises(InputError, match="no such file"):
        steps("separate", "x")


def test_a_sequence_of_hundreds_of_sets_has_its_digests(tmp_path, steps):
    steps("sequential", "a")  # which writes the configuration
    sets = [{"name": f"set-{number}", "documents": f"{tmp_path}/a.txt"} for number in range(300)]
    found = steps_of(load_config(tmp_path / "run.yaml", ["mode=sequential", f"forget_sets={json.dumps(sets)}"]))
    assert len({of_set["result"].digest for of_set in found.values()}) == 300
    assert len(with_inputs([of_set["history"] for of_set in found.values()])) > 300 * 7
