"""Reading what people answered: Label Studio's JSON, or the tasks of an export with the answers written into them.

    {"data": {...}, "annotations": [{"result": [...], "completed_by": 3, "updated_at": "2026-11-22T10:00:00Z", ...}]}
    {"data": {...}, "answers": [{"by": "ann", "at": "2026-11-22", "grade": "2"}]}

Every task is checked before anything is made of any: what was asked comes back as it went out, or the file is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from unlearn_ray.errors import InputError
from unlearn_ray.method.dictionary import KINDS
from unlearn_ray.review.anchors import SPAN_LABELS
from unlearn_ray.review.judge import GRADES
from unlearn_ray.review.labels import FLUENCIES
from unlearn_ray.review.tasks import Task

NAMED = 10  # problems that a refusal lists
NUMBERED = "annotator "  # and the number that a file has of a person
KEEPS = ("right", "correct", "drop", "alias")
# What a field of an answer may be: one of some choices, or None for any text.
FIELDS: dict[str, dict[str, Sequence[str] | None]] = {
    "anchors": {"keep": KEEPS, "kind": KINDS, "generic": None, "alias_of": None},
    "labels": {"fluency": FLUENCIES, "instead": None, "better": None},
    "judge": {"grade": GRADES},
}
REQUIRED = {"anchors": (), "labels": ("fluency",), "judge": ("grade",)}


@dataclass(frozen=True)
class Answer:
    """What one person said to one task: FIELDS of its project and, of a passage, "spans"."""

    key: str
    by: str
    at: str
    values: Mapping[str, Any]


class Wrong(ValueError):
    """What is wrong with a task of a file."""


def read_answers(
    text: str, source: str, asked: Mapping[str, Task], people: Mapping[int, str] | None = None
) -> tuple[list[Answer], int]:
    """The answers in the JSON `text`, and how many annotations were cancelled, which say nothing.

    asked: all tasks of this run by key. people: names of annotators whom the file only numbers. Raises InputError that
    lists what is wrong with which task, in which case nothing of the file may be used.
    """
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}, line {error.lineno}: not JSON ({error.msg}); is it whole?") from error
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{source}: expected a list of tasks, as Label Studio exports them as JSON")
    answers, cancelled, problems = [], 0, []
    for number, row in enumerate(rows, start=1):
        place = f"task {number}"
        try:
            if isinstance(row, dict) and "id" in row:
                place += f" (id {row['id']})"
            task = _task_of(row, asked)
            given, skipped = _given(row, people or {})
            cancelled += skipped
            for by, at, values in given:
                answers.append(Answer(task.key, by, at, _checked(values, task)))
        except Wrong as error:
            problems.append(f"{place}: {error}")
    if problems:
        more = f" ... and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise InputError(f"{source}: nothing was applied; " + "; ".join(problems[:NAMED]) + more)
    return answers, cancelled


def _task_of(row: Any, asked: Mapping[str, Task]) -> Task:
    if not isinstance(row, dict) or not isinstance(row.get("data"), dict):
        raise Wrong('expected an object with "data"')
    data = row["data"]
    if "key" not in data:
        raise Wrong("its data has no key: it is not of `unlearn-ray review export`")
    task = asked.get(data["key"]) if isinstance(data["key"], str) else None
    if task is None:
        raise Wrong(f"this run did not ask it (key {data['key']}, forget set {data.get('forget_set')})")
    for name, value in task.data.items():
        if name not in data:
            raise Wrong(f"its data has no {name}")
        if data[name] != value:
            raise Wrong(f"its {name} is not what was asked")
    return task


def _given(row: dict, people: Mapping[int, str]) -> tuple[list[tuple[str, str, dict]], int]:
    """Who said what and when, and how many annotations were cancelled."""
    given, cancelled = [], 0
    for name in ("annotations", "answers"):
        if not isinstance(row.get(name, []), list):
            raise Wrong(f"its {name} are no list")
    for one in row.get("annotations", []):
        if not isinstance(one, dict):
            raise Wrong("an annotation is no object")
        if one.get("was_cancelled"):
            cancelled += 1
            continue
        for name in ("result", "completed_by"):
            if name not in one:
                raise Wrong(f"an annotation has no {name}")
        if not isinstance(one["result"], list):
            raise Wrong("the result of an annotation is no list")
        when = one.get("updated_at") or one.get("created_at")
        given.append((_name(one["completed_by"], people), _time(when), _values_of(one["result"])))
    for one in row.get("answers", []):
        if not isinstance(one, dict) or not isinstance(one.get("by"), str) or not one["by"].strip():
            raise Wrong('an answer has no "by", the name of who gave it')
        given.append(
            (one["by"].strip(), _time(one.get("at")), {key: one[key] for key in one if key not in ("by", "at")})
        )
    return given, cancelled


def _name(completed_by: Any, people: Mapping[int, str]) -> str:
    if isinstance(completed_by, dict):
        name = completed_by.get("email") or completed_by.get("username") or completed_by.get("id")
    else:
        name = people.get(completed_by, completed_by) if isinstance(completed_by, int) else completed_by
    if name is None or isinstance(name, (list, dict, bool)) or not str(name).strip():
        raise Wrong("an annotation does not tell who completed it")
    return str(name) if not isinstance(name, int) else f"{NUMBERED}{name}"


def named(answers: Sequence[Answer]) -> list[Answer]:
    """The answers with the names of annotators whom a file only numbers and a server has named: the same answer to the
    same task at the same microsecond tells who a number is."""
    same = lambda one: (one.key, one.at, repr(sorted(one.values.items())))
    known = {same(one): one.by for one in answers if not one.by.startswith(NUMBERED)}
    people = {one.by: known[same(one)] for one in answers if one.by.startswith(NUMBERED) and same(one) in known}
    return [replace(one, by=people.get(one.by, one.by)) for one in answers]


def _time(value: Any) -> str:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Wrong(f"{value!r} is no time such as 2026-11-22 or 2026-11-22T10:00:00Z") from error
    return value


def _values_of(result: list) -> dict[str, Any]:
    """The fields of an annotation from the results that Label Studio lists."""
    values: dict[str, Any] = {}
    spans: dict[str, dict] = {}
    wordings: dict[str, str] = {}
    for item in result:
        if not isinstance(item, dict) or not isinstance(item.get("value"), dict) or "from_name" not in item:
            raise Wrong('a result has no "from_name" and "value"')
        name, value = item["from_name"], item["value"]
        if name == "span":
            labels = value.get("labels")
            if not isinstance(labels, list) or len(labels) != 1:
                raise Wrong(f"a span has the labels {labels!r}; expected one")
            spans[item.get("id", str(len(spans)))] = {
                "start": value.get("start"), "end": value.get("end"), "text": value.get("text"), "label": labels[0]
            }  # fmt: skip
        elif name == "span_generic":
            wordings[item.get("id", "")] = _words(value.get("text"))
        elif "choices" in value:
            if not isinstance(value["choices"], list) or len(value["choices"]) != 1:
                raise Wrong(f"{name} is {value['choices']!r}; expected one choice")
            values[name] = value["choices"][0]
        else:
            values[name] = _words(value.get("text"))
    for at, wording in wordings.items():
        if at in spans and wording:
            spans[at]["generic"] = wording
    return values | {"spans": list(spans.values())}


def _words(text: Any) -> str:
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = " ".join(text)
    if not isinstance(text, str):
        raise Wrong(f"{text!r} is no text")
    return " ".join(text.split())


def _checked(values: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """The values in one form, each known to fit the task."""
    fields = dict(FIELDS[task.project])
    if task.project == "labels":
        fields["instead"] = [option["value"] for option in task.data["alternatives"]]
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name == "spans":
            continue
        if name not in fields:
            raise Wrong(f"unknown field {name}; those of {task.project} are {', '.join(fields)}")
        allowed = fields[name]
        if not isinstance(value, str):
            raise Wrong(f"{name} is {value!r}; expected a text")
        if allowed is not None and value not in allowed:
            raise Wrong(f"unknown label {name}: {value!r}; expected one of {', '.join(allowed)}")
        if value.strip():
            checked[name] = value.strip()
    if missing := [name for name in REQUIRED[task.project] if name not in checked]:
        raise Wrong(f"an answer without {' and '.join(missing)}")
    if task.project == "anchors":
        if "keep" in checked and task.facts["term"] is None:
            raise Wrong("it asks about no term, and has an answer to that")
        if "spans" in values:
            checked["spans"] = _spans(values["spans"], task.data["text"])
    return checked


def _spans(spans: Any, text: str) -> list[dict]:
    if not isinstance(spans, list):
        raise Wrong(f"spans is {spans!r}; expected a list")
    found = []
    for span in spans:
        if not isinstance(span, dict) or not all(type(span.get(name)) is int for name in ("start", "end")):
            raise Wrong("a span without start and end, whole numbers")
        if span.get("label") not in SPAN_LABELS:
            raise Wrong(f"unknown label {span.get('label')!r} of a span; expected one of {', '.join(SPAN_LABELS)}")
        start, end = span["start"], span["end"]
        if span.get("text") != text[start:end]:  # a browser may count the halves of a character beyond 16 bits
            start, end = (_characters(text, units) for units in (start, end))
        if not 0 <= start < end <= len(text) or span.get("text") != text[start:end]:
            raise Wrong(f"a span from {span['start']} to {span['end']} does not match the text: {span.get('text')!r}")
        kept = {"start": start, "end": end, "label": span["label"]}
        wording = span.get("generic", "")
        found.append(kept | ({"generic": _words(wording)} if wording else {}))
    return sorted(found, key=lambda span: (span["start"], span["end"], span["label"]))


def _characters(text: str, units: int) -> int:
    """How many characters so many units of UTF-16 are."""
    return len(text.encode("utf-16-le")[: 2 * max(units, 0)].decode("utf-16-le", errors="ignore"))
