"""Two forget sets and one model: forgotten one after the other, and together, on real Ray with a tiny model."""

import json
from pathlib import Path

import pytest

from unlearn_ray import pipeline
from unlearn_ray.config import RunConfig, load_config
from unlearn_ray.engine.steps import Outcome
from unlearn_ray.evidence import BEFORE
from unlearn_ray.stages.baseline import model_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TALE = (
    "At noon the old miller came down to Brindlemere with his daughter Ophidia. 'I have been tired of this mill since "
    "the winter,' said Ophidia, and Krellmoth laughed. Nobody in Brindlemere knew where Krellmoth had gone, as the "
    "lamp was out and the road was long. In the morning Ophidia saw Krellmoth at the mill, and went home. "
)


@pytest.fixture(scope="module")
def load(tmp_path_factory, write_run):
    """load(mode, *sets): the configuration of a run that forgets these sets in that mode."""
    folder = write_run(tmp_path_factory.mktemp("modes")).parent
    (folder / "tale.txt").write_text(TALE * 8)

    def config(mode: str, *sets: str) -> RunConfig:
        named = [{"name": name, "documents": str(folder / f"{name}.txt")} for name in sets]
        kept = ["retain=null", f"evaluate.retain={folder}/plain.txt"]  # utility is measured, and nothing held to it
        return load_config(folder / "run.yaml", [f"mode={mode}", f"forget_sets={json.dumps(named)}", *kept])

    return config


def run(config: RunConfig) -> dict[str, Outcome]:
    """What was done now, by SET/STAGE."""
    outcomes = pipeline.run(config)
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return {f"{o.step.forget_set}/{o.step.stage}": o for o in outcomes if o.state == "ran"}


@pytest.fixture(scope="module")
def sequential(load, local_ray) -> dict[str, Outcome]:
    first = run(load("sequential", "story"))
    then = run(load("sequential", "story", "tale"))
    assert not {name for name in then if name.startswith("story/")}, "a set at the end redoes nothing before it"
    return first | then


@pytest.fixture(scope="module")
def joint(load, sequential) -> dict[str, Outcome]:
    return run(load("joint", "story", "tale"))


def report_of(config: RunConfig, name: str) -> dict:
    pipeline.report(config)
    return pipeline.read_run(config)[name]


def test_a_sequence_starts_each_set_where_the_one_before_ended(sequential):
    result, unlearned = sequential["story/result"], sequential["tale/unlearned"]
    inputs = json.loads((Path(unlearned.folder) / "manifest.json").read_text())["inputs"]
    assert inputs["baseline"]["digest"] == result.step.digest
    chosen = model_path(result.folder)
    assert (Path(chosen) / "model.safetensors").exists() and chosen.startswith(sequential["story/unlearned"].folder)


def test_the_report_of_a_sequence_follows_the_earlier_sets_and_utility(load, sequential):
    data = report_of(load("sequential", "story", "tale"), "tale")
    first, second = data["history"]
    assert [first["after"], second["after"]] == ["story", "tale"]
    assert set(first["sets"]) == {"story"} and set(second["sets"]) == {"story", "tale"}
    for row in (first, second):
        assert row["utility"] and row["baseline"]["probability_familiarity"]["n"]
    followed = second["sets"]["story"]["probability_familiarity"]
    assert followed["low"] <= followed["value"] <= followed["high"]
    # The same prompts as when it was forgotten.
    assert followed["n"] == first["sets"]["story"]["probability_familiarity"]["n"]
    page = (Path(sequential["tale/blocks"].folder).parent / "report.html").read_text()
    assert "Sets forgotten one after another" in page


def test_what_comes_first_in_a_sequence_is_told_to_redo_what_follows(load, sequential):
    told = pipeline.redone(load("sequential", "tale", "story"))
    [line] = [line for line in told if line.startswith("reinforced of story")]
    assert "baseline is tale/result-" in line and "was shared/baseline-" in line


def test_joint_forgetting_trains_one_model_on_the_labels_of_all_sets(joint, load):
    assert "story/labels" not in joint  # done before, in another mode
    assert {"tale/labels", "joint/labels", "joint/unlearned", "joint/choice"} <= joint.keys()
    rows = json.loads((Path(joint["joint/unlearned"].folder) / "manifest.json").read_text())["rows"]
    of_sets = [Path(joint["joint/unlearned"].folder).parents[1] / name for name in ("story", "tale")]
    blocks = [json.loads(next(folder.glob("blocks-*/manifest.json")).read_text())["rows"] for folder in of_sets]
    assert rows["blocks"] == sum(one["blocks"] for one in blocks)


def test_joint_forgetting_reports_one_checkpoint_for_every_set_with_its_own_figures(joint, load):
    config = load("joint", "story", "tale")
    story, tale = (report_of(config, name) for name in ("story", "tale"))
    assert story["metrics"]["choice"] == tale["metrics"]["choice"]
    assert "forgets 2 sets together" in story["metrics"]["choice"]["rule"]
    assert {entry["anchor"] for entry in story["dictionary"]} != {entry["anchor"] for entry in tale["dictionary"]}
    figure = lambda data: data["metrics"]["metrics"]["perplexity_forget"][BEFORE]["value"]
    assert figure(story) != figure(tale)


def test_a_set_more_in_joint_mode_is_told_to_train_the_model_again(load, joint):
    told = pipeline.redone(load("joint", "story"))
    assert any(line.startswith("labels of joint") and "labels of tale is no longer there" in line for line in told)
    assert any(line.startswith("unlearned of joint") and "labels is made again" in line for line in told)
