"""From answers to decisions: what people agreed on, what stays open, and how far they and the gold tasks agree."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearn_ray.config import Review
from unlearn_ray.method.dictionary import Anchor
from unlearn_ray.review.answers import Answer
from unlearn_ray.review.tasks import Task
from unlearn_ray.review.terms import decide_terms
from unlearn_ray.review.voting import Votes, equal_share, krippendorff_alpha, nominal, settle, squared

FIELD = {"anchors": "keep", "labels": "fluency", "judge": "grade"}  # what is voted on
NOT_FLUENT = "not fluent"  # where people agree that a label is bad, and not on how


@dataclass(frozen=True)
class Decided:
    """decisions: one row a term, label or completion that people settled, sorted. open: what they did not, with their
    answers. agreement: figures."""

    decisions: list[dict]
    open: list[dict]
    agreement: dict[str, Any]


def decide(
    project: str, answers: Sequence[Answer], tasks: Mapping[str, Task], settings: Review, known: Mapping[str, Anchor]
) -> Decided:
    """What the answers to one project's tasks amount to. known: the dictionary's entries by term."""
    given = [one for one in latest(answers) if tasks[one.key].gold is None]
    if project == "anchors":
        decisions, unsettled, votes = decide_terms(given, tasks, settings, known)
    else:
        votes = _votes(given, FIELD[project])
        settled = settle(votes, settings.aggregate, settings.least_confidence)
        decide_one = _label if project == "labels" else _grade
        decisions, unsettled = [], []
        for key, label in sorted(settled.items()):
            to_task = [one for one in given if one.key == key]
            found, problem = decide_one(tasks[key], label, to_task)
            decisions += [found] if found else []
            unsettled += [problem] if problem else []
    return Decided(
        sorted(decisions, key=lambda row: tuple(str(row.get(name, "")) for name in _ORDER[project])),
        sorted(unsettled, key=lambda row: row["about"]),
        _agreement(project, answers, tasks, votes),
    )


_ORDER = {"anchors": ("term",), "labels": ("block_id", "position"), "judge": ("prompt", "completion")}


def latest(answers: Sequence[Answer]) -> list[Answer]:
    """One answer a task and person, the last one that they gave."""
    kept: dict[tuple[str, str], Answer] = {}
    for one in sorted(answers, key=lambda one: (one.at, repr(sorted(one.values.items())))):
        kept[one.key, one.by] = one
    return [kept[place] for place in sorted(kept)]


def _votes(answers: Sequence[Answer], name: str) -> dict[str, dict[str, str]]:
    votes: dict[str, dict[str, str]] = defaultdict(dict)
    for one in answers:
        votes[one.key][one.by] = one.values[name]
    return dict(votes)


def _label(task: Task, label: str | None, answers: Sequence[Answer]) -> tuple[dict | None, dict | None]:
    """What becomes of a label: it stays, or it goes and something else may come in its place."""
    bad = [one for one in answers if one.values["fluency"] != "fluent"]
    if label is None and 2 * len(bad) > len(answers):
        label = NOT_FLUENT
    about = f"label {task.facts['text'].strip()!r}, block {task.facts['block_id']}, position {task.facts['position']}"
    votes = {one.by: one.values["fluency"] for one in answers}
    if label is None:
        return None, {"project": "labels", "about": about, "why": "no majority", "answers": votes, "key": task.key}
    agreeing = [one for one in answers if (one.values["fluency"] == "fluent") == (label == "fluent")]
    row = {name: task.facts[name] for name in ("block_id", "position", "label")} | {
        "judged": label, "better": None, "by": [one.by for one in agreeing], "at": max(one.at for one in agreeing)
    }  # fmt: skip
    wordings = {one.by: better for one in bad if (better := _better(task, one))}
    if label == "fluent" or not wordings:
        return row, None
    if len(set(wordings.values())) == 1:
        return row | {"better": next(iter(wordings.values()))}, None
    why = "several better continuations; the label is left out until one is chosen"
    return row, {"project": "labels", "about": about, "why": why, "answers": wordings, "key": task.key}


def _better(task: Task, answer: Answer) -> str | None:
    """The text that an annotator would rather have, as it goes on from the context; own words before a choice."""
    if words := answer.values.get("better"):
        return " " + words if task.facts["text"][0].isspace() else words
    return task.facts["alternatives"].get(answer.values.get("instead"))


def _grade(task: Task, label: str | None, answers: Sequence[Answer]) -> tuple[dict | None, dict | None]:
    if label is None:
        about = f"completion {task.facts['completion'].strip()[:60]!r} of {task.facts['prompt'][-60:]!r}"
        votes = {one.by: one.values["grade"] for one in answers}
        return None, {"project": "judge", "about": about, "why": "no majority", "answers": votes, "key": task.key}
    agreeing = [one for one in answers if one.values["grade"] == label]
    row = {name: task.facts[name] for name in ("prompt", "completion")} | {"grade": int(label)}
    return row | {"by": [one.by for one in agreeing], "at": max((one.at for one in agreeing), default="")}, None


def _agreement(project: str, answers: Sequence[Answer], tasks: Mapping[str, Task], votes: Votes) -> dict[str, Any]:
    """alpha: Krippendorff's, nominal, for grades with squared distances; gold: how many gold tasks each annotator got
    right, and of how many."""
    given = latest(answers)
    people: dict[str, dict[str, int]] = {}
    for one in given:
        person = people.setdefault(one.by, {"answers": 0, "gold_right": 0, "gold": 0})
        person["answers"] += 1
        if gold := tasks[one.key].gold:
            person["gold"] += 1
            person["gold_right"] += one.values.get(FIELD[project]) == gold
    return {
        "tasks": len(tasks),
        "answered": len({one.key for one in given}),
        "answers": len(given),
        "several_answers": sum(len(of) > 1 for of in votes.values()),
        "alpha": krippendorff_alpha(votes, squared if project == "judge" else nominal),
        "all_equal": equal_share(votes),
        "annotators": dict(sorted(people.items())),
    }
