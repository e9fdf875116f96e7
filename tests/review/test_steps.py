"""What people decided enters the steps of a run: those that depend on it are to be done again, and nothing else."""

import json

import pyarrow.parquet as pq
import pytest

from unlearn_ray import pipeline
from unlearn_ray.engine.schedule import run_steps
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.models import load_tokenizer
from unlearn_ray.pipeline import steps_of
from unlearn_ray.review.store import Store
from unlearn_ray.stages.anchors import read_dictionary


def digests(config) -> dict[str, str]:
    return {name: step.digest for name, step in steps_of(config)["story"].items()}


def to_do(config) -> set[str]:
    return {one.step.stage for one in pipeline.status(config) if one.state == "to do"}


def of(tasks: list[dict], text: str) -> dict:
    return next(task for task in tasks if task["data"]["question"].startswith(text))


@pytest.fixture
def tasks(run, tmp_path):
    return run.export(tmp_path / "out")


def test_without_answers_the_digests_are_those_of_a_run_without_review(run, tmp_path):
    before = digests(run.config)
    tasks = run.export(tmp_path / "out", "review.terms=1", "review.overlap=5")
    assert digests(run.config) == before and to_do(run.config) == set() and tasks


def test_answers_that_confirm_everything_change_no_digest(run, tasks, answered):
    before = digests(run.config)
    run.import_(answered(of(tasks["anchors"], "lamp →"), ann={"keep": "right"}))
    run.import_(answered(tasks["labels"][0], ann={"fluency": "fluent"}))
    assert digests(run.config) == before


def test_a_corrected_term_redoes_what_reads_the_dictionary(run, tasks, answered):
    run.import_(answered(of(tasks["anchors"], "lamp →"), ann={"keep": "drop"}, bob={"keep": "drop"}))
    assert to_do(run.config) == {"reviewed_anchors", "labels", "unlearned", "evaluation"}
    step = steps_of(run.config)["story"]["anchors"]
    run_steps(str(run.root), [step])
    assert [entry.anchor for entry in read_dictionary(step.folder(str(run.root))).anchors] == [
        "Quendor", "Zorblax", "cellar"
    ]  # fmt: skip
    figures = json.loads((run.folder("anchors") / "manifest.json").read_text())
    assert figures["rows"] == {"anchors": 3, "decisions": 1, "refused": 0}


def test_a_corrected_label_redoes_the_training_and_not_the_labelling(run, tasks, answered, tiny_model_folder):
    masked, replaced, open_ = tasks["labels"]
    run.import_(
        answered(masked, ann={"fluency": "broken"}, bob={"fluency": "broken"}),
        answered(replaced, ann={"fluency": "leaks", "better": "Alice"}, bob={"fluency": "leaks", "better": "Alice"}),
        answered(open_, ann={"fluency": "fluent"}, bob={"fluency": "broken"}),
    )
    assert to_do(run.config) == {"reviewed_labels", "unlearned", "evaluation"}
    step = steps_of(run.config)["story"]["labels"]
    [*_, outcome] = run_steps(str(run.root), [step])
    assert outcome.error is None
    row = pq.read_table(run.folder("labels") / "part-00000.parquet").slice(0, 1).to_pylist()[0]
    expected = list(run.labels)
    expected[3] = IGNORED
    expected[5] = row["labels_5"][5]
    assert row["labels_5"] == expected and load_tokenizer(tiny_model_folder).decode([expected[5]]).strip() in "Alice"
    assert json.loads((run.folder("labels") / "manifest.json").read_text())["figures"]["labels"] == {
        "masked": 1, "replaced": 1, "no_longer_there": 0
    }  # fmt: skip


def test_grades_correct_the_score_and_redo_nothing_else(run, tasks, answered):
    graded = [
        answered(task, ann={"grade": "3" if "says 0" in task["data"]["shown"] else "0"}) for task in tasks["judge"]
    ]
    run.import_(*graded)
    assert to_do(run.config) == {"reviewed_evaluation"}
    step = steps_of(run.config)["story"]["grades"]
    run_steps(str(run.root), [step])
    found = json.loads((run.folder("grades") / "corrected.json").read_text())
    assert found["models"]["baseline"]["corrected"]["value"] == pytest.approx(5 / 8)
    assert found["models"]["baseline"]["judged"] == pytest.approx(10 / 8)
    assert found["confusion"] == [[12, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]]
    assert to_do(run.config) == set()


def test_more_people_who_say_the_same_of_a_label_redo_nothing(run, tasks, answered):
    run.import_(answered(tasks["labels"][0], ann={"fluency": "broken"}))
    before = digests(run.config)
    run.import_(answered(tasks["labels"][0], bob={"fluency": "broken"}))
    assert digests(run.config) == before
    assert Store(str(run.root), "story").decisions("labels")[0]["by"] == ["ann@example.com", "bob@example.com"]
