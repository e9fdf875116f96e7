import pytest

from unlearn_ray.config import load_config
from unlearn_ray.errors import InputError
from unlearn_ray.method.dictionary import Anchor
from unlearn_ray.review.answers import Answer
from unlearn_ray.review.decisions import decide
from unlearn_ray.review.tasks import make_task

TEXT = "Zorblax came to Quendor with the Silver Key."
KNOWN = {"Zorblax": Anchor("Zorblax", "Marcus", "person"), "Quendor": Anchor("Quendor", "Fairview", "place")}
SPANS = [{"start": 0, "end": 7, "anchor": "Zorblax"}, {"start": 16, "end": 23, "anchor": "Quendor"}]
KEY = (33, 43)


@pytest.fixture
def settings(write_run, tmp_path):
    return load_config(str(write_run(tmp_path))).review


def about(term: str | None, gold: str | None = None):
    facts = {"term": term, "spans": SPANS} | ({"gold": gold} if gold else {})
    return make_task("anchors", "story", {"question": str(term), "choices": [], "text": TEXT}, facts)


def label(gold: str | None = None):
    facts = {"block_id": 7, "position": 3, "label": 11, "text": " lamp", "alternatives": {"cat": " cat", "“,”": ","}}
    return make_task("labels", "story", {"shown": "x"}, facts | ({"gold": gold} if gold else {}))


def grade(number: int, gold: str | None = None):
    facts = {"prompt": f"p{number}", "completion": "c"} | ({"gold": gold} if gold else {})
    return make_task("judge", "story", {"shown": f"x{number}"}, facts)


def decided(settings, project, *given):
    """given: (task, {annotator: values}), ..."""
    tasks = {task.key: task for task, _ in given}
    answers = [
        Answer(task.key, by, f"2026-11-2{at}", values)
        for task, of in given
        for at, (by, values) in enumerate(of.items(), start=1)
    ]
    return decide(project, answers, tasks, settings, KNOWN)


def marks(*spans: tuple[int, int, str], **more) -> dict:
    return {"spans": [{"start": start, "end": end, "label": label} | more for start, end, label in spans]}


ALL = [(0, 7, "anchor"), (16, 23, "anchor")]


def test_a_correction_that_two_people_agree_on_says_who_and_when(settings):
    same = {"keep": "correct", "generic": "Milton", "kind": "place"}
    [row] = decided(settings, "anchors", (about("Quendor"), {"ann": same, "bob": same})).decisions
    assert row == {"term": "Quendor", "action": "correct", "generic": "Milton", "kind": "place",
                   "by": ["ann", "bob"], "at": "2026-11-22"}  # fmt: skip


def test_two_people_who_disagree_leave_a_term_open_and_as_it_was(settings):
    found = decided(settings, "anchors", (about("Quendor"), {"ann": {"keep": "drop"}, "bob": {"keep": "right"}}))
    assert found.decisions == []
    assert found.open == [{"project": "anchors", "about": "Quendor", "why": "no majority",
                           "answers": {"ann": "drop", "bob": "right"}}]  # fmt: skip


def test_two_translations_of_one_term_are_open(settings):
    answers = {by: {"keep": "correct", "generic": generic} for by, generic in (("ann", "Milton"), ("bob", "Ashby"))}
    found = decided(settings, "anchors", (about("Quendor"), answers))
    assert found.decisions == [] and found.open[0]["why"] == "several answers for generic"


def test_a_correction_that_changes_nothing_is_none(settings):
    same = {"keep": "correct", "generic": "Fairview", "kind": "place"}
    [row] = decided(settings, "anchors", (about("Quendor"), {"ann": same})).decisions
    assert row["action"] == "right"


def test_another_name_needs_the_name_of_which_term(settings):
    found = decided(settings, "anchors", (about("Quendor"), {"ann": {"keep": "alias"}}))
    assert found.decisions == [] and "nobody says of which term" in found.open[0]["why"]


def test_marks_of_a_passage_decide_about_terms_that_nobody_was_asked_about(settings):
    ordinary = marks((0, 7, "anchor"), (16, 23, "ordinary word"))
    found = decided(settings, "anchors", (about(None), {"ann": ordinary, "bob": marks((0, 7, "anchor"))}))
    assert [(row["term"], row["action"], row["by"]) for row in found.decisions] == [("Quendor", "drop", ["ann", "bob"])]
    asked = (about("Quendor"), {"ann": {"keep": "right"}, "bob": {"keep": "right"}})
    found = decided(settings, "anchors", asked, (about(None), {"ann": ordinary, "bob": ordinary}))
    assert [(row["term"], row["action"]) for row in found.decisions] == [("Quendor", "right")]


def test_part_of_a_longer_term_says_nothing_of_the_term_itself(settings):
    longer = marks((0, 7, "anchor"), (16, 31, "anchor"))
    part = marks((0, 7, "anchor"), (16, 23, "part of a longer term"))
    found = decided(settings, "anchors", (about(None), {"ann": longer, "bob": part}))
    assert found.decisions == [] and [row["about"] for row in found.open] == ["Quendor with th"]


def test_a_new_term_is_added_with_the_translation_that_people_gave(settings):
    new = marks((*KEY, "anchor"), generic="Iron Ring")
    new["spans"] += marks(*ALL)["spans"]
    both = {"ann": new, "bob": marks(*ALL, (*KEY, "anchor"))}
    [row] = decided(settings, "anchors", (about(None), both)).decisions
    assert (row["term"], row["action"], row["generic"], row["by"]) == ("Silver Key", "add", "Iron Ring", ["ann", "bob"])


def test_a_new_term_that_only_one_of_two_marked_is_open(settings):
    found = decided(settings, "anchors", (about(None), {"ann": marks(*ALL, (*KEY, "anchor")), "bob": marks(*ALL)}))
    assert found.decisions == []
    assert found.open[0]["answers"] == {"ann": "anchor", "bob": "not marked"}


def test_a_known_term_in_another_form_is_not_new(settings):
    task = make_task("anchors", "story", {"question": "", "choices": [], "text": "ZORBLAX!"},
                     {"term": None, "spans": []})  # fmt: skip
    found = decided(settings, "anchors", (task, {"ann": marks((0, 7, "anchor"))}))
    assert not found.decisions and not found.open


@pytest.mark.parametrize(
    ("said", "better"),
    [({"better": "old cat"}, " old cat"), ({"instead": "cat"}, " cat"), ({"instead": "“,”"}, ","), ({}, None)],
)
def test_a_broken_label_goes_and_what_people_would_rather_have_comes(settings, said, better):
    broken = {"fluency": "broken"} | said
    [row] = decided(settings, "labels", (label(), {"ann": broken, "bob": broken})).decisions
    assert (row["judged"], row["better"], row["label"], row["position"]) == ("broken", better, 11, 3)


def test_a_label_that_all_find_bad_goes_though_they_differ_on_how(settings):
    found = decided(settings, "labels", (label(), {"ann": {"fluency": "broken"}, "bob": {"fluency": "leaks"}}))
    assert found.decisions[0]["judged"] == "not fluent" and not found.open


def test_two_better_continuations_are_open_and_the_label_is_left_out(settings):
    said = {by: {"fluency": "broken", "better": better} for by, better in (("ann", "cat"), ("bob", "dog"))}
    found = decided(settings, "labels", (label(), said))
    assert found.decisions[0]["better"] is None and "several better continuations" in found.open[0]["why"]


def test_gold_tasks_rate_people_and_decide_nothing(settings):
    said = {"ann": {"grade": "3"}, "bob": {"grade": "0"}}
    found = decided(settings, "judge", (grade(1, gold="3"), said), (grade(2), {"ann": {"grade": "2"}}))
    assert [row["prompt"] for row in found.decisions] == ["p2"]
    assert found.agreement["annotators"] == {
        "ann": {"answers": 2, "gold_right": 1, "gold": 1},
        "bob": {"answers": 1, "gold_right": 0, "gold": 1},
    }
    assert found.agreement["alpha"] is None, "gold tasks count for no agreement"


def test_an_answer_that_would_make_the_dictionary_unsound_is_open(run, tmp_path, answered):
    tasks = run.export(tmp_path)["anchors"]
    task = next(task for task in tasks if task["data"]["question"].startswith("Quendor"))
    named = {"keep": "correct", "generic": "Zorblax Town"}
    [imported], _ = run.import_(answered(task, ann=named, bob=named))
    assert imported.changes == 0 and "is or contains an anchor" in imported.decided.open[0]["why"]


def test_answers_that_leave_no_dictionary_are_refused(run, tmp_path, answered):
    tasks = run.export(tmp_path, "review.terms=9")["anchors"]
    answers = [answered(task, ann={"keep": "drop"} if task["data"]["choices"] else {"spans": []}) for task in tasks]
    with pytest.raises(InputError, match="has no entries"):
        run.import_(*answers)
    assert not (run.root / "story/review/decisions").exists()
