"""What review keeps in a run, below ROOT/FORGET_SET/review/: JSON lines, sorted, each file written whole or not at all.

asked/PROJECT.jsonl      every task that was exported, with what only the run knows of it
answers/PROJECT.jsonl    every person's last answer to a task, with who and when
decisions/PROJECT.jsonl  what follows from them: this is what a run applies
open.jsonl               what people did not settle
agreement.json           how far they agree, and the gold tasks
mark.json                by which this run finds its projects on a server, where another run may have a set of that name
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from unlearn_ray.engine import storage
from unlearn_ray.errors import InputError
from unlearn_ray.review.answers import Answer
from unlearn_ray.review.corrections import effective
from unlearn_ray.review.tasks import PROJECTS, Task


class Store:
    """The files of one forget set."""

    def __init__(self, root: str, forget_set: str):
        self.folder = storage.join(root, forget_set, "review")

    def tasks(self, project: str) -> dict[str, Task]:
        rows = self._lines(f"asked/{project}.jsonl")
        return {row["data"]["key"]: Task(project, row["data"], row["facts"]) for row in rows}

    def add_tasks(self, project: str, tasks: Iterable[Task]) -> None:
        """Adds to what was asked: answers to an earlier export stay readable."""
        known = self.tasks(project) | {task.key: task for task in tasks}
        self._write(
            f"asked/{project}.jsonl", [{"data": known[key].data, "facts": known[key].facts} for key in sorted(known)]
        )

    def answers(self, project: str) -> list[Answer]:
        return [Answer(**row) for row in self._lines(f"answers/{project}.jsonl")]

    def write_answers(self, project: str, answers: Sequence[Answer]) -> None:
        self._write(f"answers/{project}.jsonl", [asdict(one) for one in answers])

    def decisions(self, project: str) -> list[dict]:
        return self._lines(f"decisions/{project}.jsonl")

    def write_decisions(self, project: str, rows: Sequence[dict]) -> None:
        self._write(f"decisions/{project}.jsonl", rows)

    def open(self) -> list[dict]:
        return self._lines("open.jsonl")

    def write_open(self, rows: Sequence[dict]) -> None:
        self._write("open.jsonl", rows)

    def agreement(self) -> dict[str, Any]:
        path = storage.join(self.folder, "agreement.json")
        return storage.read_json(path) if storage.exists(path) else {}

    def write_agreement(self, agreement: dict[str, Any]) -> None:
        storage.write_json(storage.join(self.folder, "agreement.json"), agreement)

    def mark(self) -> str | None:
        """None where nothing was exported to a server. Kept here, and not made of the root: a run may move."""
        path = storage.join(self.folder, "mark.json")
        return storage.read_json(path)["mark"] if storage.exists(path) else None

    def make_mark(self) -> str:
        if mark := self.mark():
            return mark
        mark = secrets.token_hex(6)
        storage.write_json(storage.join(self.folder, "mark.json"), {"mark": mark})
        return mark

    def _write(self, name: str, rows: Sequence[Any]) -> None:
        storage.write_lines(storage.join(self.folder, name), rows)

    def _lines(self, name: str) -> list[dict]:
        path = storage.join(self.folder, name)
        if not storage.exists(path):
            return []
        # Not splitlines(): a JSON string may hold U+2028 as it is.
        lines = storage.read_text(path).split("\n")
        try:
            return [json.loads(line) for line in lines if line]
        except ValueError as error:
            raise InputError(f"{path}: not JSON lines ({error}); remove it, and export and import again") from error


def decisions_of(root: str, forget_set: str) -> dict[str, list[dict]]:
    """Project -> the decisions that change something. Costs one listing where there was no review."""
    store = Store(root, forget_set)
    there = set(storage.list_files(storage.join(store.folder, "decisions")))
    return {
        project: effective(project, store.decisions(project))
        if storage.join(store.folder, f"decisions/{project}.jsonl") in there
        else []
        for project in PROJECTS
    }
