"""What a labelling task is: what a person sees, and beside it what only the run knows."""

import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

PROJECTS = ("anchors", "labels", "judge")
_STYLE = "font: 17px/1.7 Georgia, serif"


@dataclass(frozen=True)
class Task:
    """data: all that Label Studio gets and shows, plain JSON. facts: what an answer is about, and in "gold" the answer
    where it is known; never shown. marks: what the interface has filled in beforehand, as results of Label Studio.
    """

    project: str
    data: Mapping[str, Any]
    facts: Mapping[str, Any]
    marks: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def key(self) -> str:
        return self.data["key"]

    @property
    def gold(self) -> str | None:
        return self.facts.get("gold")


def make_task(
    project: str,
    forget_set: str,
    shown: Mapping[str, Any],
    facts: Mapping[str, Any],
    marks: Sequence[Mapping[str, Any]] = (),
) -> Task:
    """A task whose key follows from what it shows and is about: asked again, it is the same task."""
    identity = json.dumps([project, forget_set, shown, facts], sort_keys=True, ensure_ascii=False)
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Task(project, {"key": key, "forget_set": forget_set, **shown}, facts, marks)


def to_label_studio(task: Task) -> dict:
    """The task as Label Studio imports it; "answers" is for those who answer in the file (answers.py)."""
    predictions = [{"model_version": "unlearn-ray", "result": list(task.marks)}] if task.marks else []
    return {"data": dict(task.data), "predictions": predictions, "answers": []}


def interface(project: str) -> str:
    """The labelling interface of a project, in Label Studio's XML."""
    return files("unlearn_ray.review").joinpath(f"{project}.xml").read_text(encoding="utf-8")


def page(*paragraphs: str) -> str:
    """What a HyperText shows; paragraphs are HTML, so text in them has to be escaped before."""
    return f'<div style="{_STYLE}">' + "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs) + "</div>"


def escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def among(tasks: Sequence[Task], gold: Sequence[Task]) -> list[Task]:
    """The tasks with the gold ones spread evenly among them, the first one early: it says most about an annotator."""
    mixed = list(tasks)
    for number, one in enumerate(gold):
        mixed.insert(min(2 + number * (len(tasks) // max(len(gold), 1) + 1), len(mixed)), one)
    return mixed


def text_before(text: str, end: int, characters: int, cut: bool) -> str:
    """What stands before text[end], at most so many characters, from a space on; cut: the text itself begins within a
    document, perhaps within a word."""
    start = max(end - characters, 0)
    if start or cut:
        space = text.find(" ", start, end)
        start = space + 1 if space >= 0 else start
    return ("… " if start or cut else "") + text[start:end]
