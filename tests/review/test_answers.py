"""Reading answers: what is taken, and what is refused by task with nothing applied."""

import copy
import json

import pytest

from unlearn_ray.errors import InputError
from unlearn_ray.reviewing import import_review


@pytest.fixture
def tasks(run, tmp_path) -> dict[str, list[dict]]:
    return run.export(tmp_path / "out")


def state(run) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (run.root / "story/review").rglob("*") if path.is_file()}


def term(tasks, name: str) -> dict:
    return next(task for task in tasks["anchors"] if task["data"]["question"].startswith(name))


def drop_field(task: dict, name: str) -> None:
    del task["annotations"][0][name]


BAD = {
    "other run": (lambda task: task["data"].update(key="0123456789abcdef"), "this run did not ask it"),
    "no key": (lambda task: task["data"].pop("key"), "its data has no key"),
    "no data": (lambda task: task.pop("data"), 'expected an object with "data"'),
    "missing field": (lambda task: task["data"].pop("text"), "its data has no text"),
    "other text": (lambda task: task["data"].update(text="x" + task["data"]["text"]), "its text is not what was asked"),
    "nobody": (lambda task: drop_field(task, "completed_by"), "an annotation has no completed_by"),
    "no result": (lambda task: drop_field(task, "result"), "an annotation has no result"),
    "no time": (lambda task: drop_field(task, "updated_at"), "None is no time"),
    "unknown field": (lambda task: task["annotations"][0]["result"][0].update(from_name="mood"), "unknown field mood"),
    "unknown label": (
        lambda task: task["annotations"][0]["result"][0]["value"].update(choices=["perhaps"]),
        "unknown label keep: 'perhaps'; expected one of right, correct, drop, alias",
    ),
    "unknown span label": (
        lambda task: task["annotations"][0]["result"][-1]["value"].update(labels=["villain"]),
        "unknown label 'villain' of a span",
    ),
    "moved offset": (
        lambda task: task["annotations"][0]["result"][-1]["value"].update(start=0),
        "does not match the text",
    ),
    "offset beyond": (
        lambda task: task["annotations"][0]["result"][-1]["value"].update(end=10**6),
        "does not match the text",
    ),
    "no number": (
        lambda task: task["annotations"][0]["result"][-1]["value"].update(start=None),
        "a span without start and end",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_task_is_named_and_nothing_of_its_file_is_applied(run, tasks, answered, case):
    spoil, message = BAD[case]
    good, bad = (
        answered(term(tasks, "lamp"), ann={"keep": "drop"}),
        answered(term(tasks, "cellar"), ann={"keep": "drop"}),
    )
    spoil(bad)
    before = state(run)
    with pytest.raises(InputError) as refusal:
        run.import_(good, bad)
    assert str(refusal.value).startswith("answers.json: nothing was applied; task 2 (id 1): ")
    assert message in str(refusal.value) and "task 1" not in str(refusal.value)
    assert state(run) == before


def test_a_good_file_beside_a_bad_one_is_not_applied_either(run, tasks, answered):
    good = json.dumps([answered(term(tasks, "lamp"), ann={"keep": "drop"})])
    before = state(run)
    with pytest.raises(InputError, match=r"bad\.json, line 1: not JSON"):
        import_review(run.config, [("good.json", good, {}), ("bad.json", good[:-20], {})])
    assert state(run) == before


@pytest.mark.parametrize("text", ["", "{}", "[]", "nothing", '[{"data": 3}]', "[1]"])
def test_what_is_no_export_is_refused(run, tasks, text):
    with pytest.raises(InputError, match=r"^f\.json"):
        import_review(run.config, [("f.json", text, {})])


def test_tasks_without_answers_are_told(run, tasks):
    with pytest.raises(InputError, match="no task has an answer"):
        run.import_(*tasks["judge"])


def test_answers_to_another_forget_set_or_project_are_refused_before_anything_was_asked(run):
    with pytest.raises(InputError, match="nothing was asked yet"):
        run.import_({"data": {}})


def test_cancelled_annotations_are_counted_and_say_nothing(run, tasks, answered):
    answer = answered(term(tasks, "lamp"), ann={"keep": "drop"}, bob={"keep": "right"})
    answer["annotations"][1]["was_cancelled"] = True
    [imported], cancelled = run.import_(answer)
    assert cancelled == 1 and [row["action"] for row in imported.decided.decisions] == ["drop"]


def test_answers_can_be_written_into_the_exported_file(run, tasks):
    edited = copy.deepcopy(tasks["judge"])
    edited[0]["answers"] = [{"by": "ann", "at": "2026-11-22", "grade": "2"}]
    [imported], _ = run.import_(*edited)
    assert imported.decided.decisions[0] | {"prompt": "", "completion": ""} == {
        "prompt": "", "completion": "", "grade": 2, "by": ["ann"], "at": "2026-11-22"
    }  # fmt: skip


def test_numbered_annotators_get_their_names(run, tasks, answered):
    answer = answered(tasks["judge"][0], ann={"grade": "0"}, bob={"grade": "0"})
    answer["annotations"][0]["completed_by"], answer["annotations"][1]["completed_by"] = 3, 4
    [imported], _ = import_review(run.config, [("server", json.dumps([answer]), {3: "ann@example.com"})])[0:2]
    assert set(imported.decided.agreement["annotators"]) == {"ann@example.com", "annotator 4"}


def test_a_file_and_a_server_with_the_same_annotations_are_the_same_people(run, tasks, answered):
    both = [answered(task, ann={"grade": "0"}, bob={"grade": "1"}) for task in tasks["judge"][:2]]
    for task in both:
        task["annotations"][0]["completed_by"], task["annotations"][1]["completed_by"] = 3, 4
    both[1]["annotations"][1]["updated_at"] = "2026-11-23T10:00:00Z"  # changed between the two imports
    people, earlier = {3: "ann@example.com", 4: "bob@example.com"}, copy.deepcopy(both)
    earlier[1]["annotations"][1]["updated_at"] = "2026-11-22T10:01:00Z"
    import_review(run.config, [("file", json.dumps(both), {})])
    [imported], _ = import_review(run.config, [("server", json.dumps(earlier), people)])
    assert imported.decided.agreement["annotators"].keys() == set(people.values())
    [imported], _ = import_review(run.config, [("file", json.dumps(both), {})])
    assert imported.decided.agreement["answers"] == 4 and imported.new == 0


def test_offsets_of_a_browser_that_counts_halves_of_characters_are_understood(run, tasks, answered):
    from unlearn_ray.review.answers import _spans

    text = "A 🐇 ran"
    assert _spans([{"start": 5, "end": 8, "text": "ran", "label": "anchor"}], text)[0]["start"] == 4


def test_importing_twice_changes_nothing_and_a_later_answer_replaces_an_earlier_one(run, tasks, answered):
    first = answered(term(tasks, "lamp"), ann={"keep": "drop"}, bob={"keep": "drop"})
    run.import_(first)
    before = state(run)
    [imported], _ = run.import_(first)
    assert state(run) == before and imported.new == 0
    changed = answered(term(tasks, "lamp"), ann={"keep": "right"})
    changed["annotations"][0]["updated_at"] = "2026-11-23T10:00:00Z"
    run.import_(changed)
    assert run.read("decisions/anchors.jsonl") == [] and run.read("open.jsonl")[0]["about"] == "lamp"
    run.import_(first)  # the older file again
    assert run.read("open.jsonl")[0]["answers"] == {"ann@example.com": "right", "bob@example.com": "drop"}
