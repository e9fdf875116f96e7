"""The three projects on a Label Studio server, through label-studio-sdk. The API token is in LABEL_STUDIO_API_KEY."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.review.tasks import Task, interface, to_label_studio

TOKEN = "LABEL_STUDIO_API_KEY"
TASKS_AT_ONCE = 1000
TITLES = {"anchors": "anchor terms", "labels": "label fluency", "judge": "judge audit"}
LONGEST_TITLE = 50  # that Label Studio takes
INSTRUCTIONS = {
    "anchors": "1 right as it is, 2 correct it, 3 not an anchor, 4 another name of a term. In the text: click a mark "
    "and press o for an ordinary word or p for part of a longer term; press a and select what is missing. Ctrl+Enter "
    "submits.",
    "labels": "1 fluent, 2 gives something away, 3 broken; then, if you like, 4 to 8 for something better, or your own "
    "words. Ctrl+Enter submits.",
    "judge": "3, 2, 1 or 0: how much the bold text knows of the work. What stands before it counts for nothing. "
    "Ctrl+Enter submits.",
}


def title_of(forget_set: str, project: str) -> str:
    """For people. They may change it, and another run may have a set of that name: it is not what finds a project."""
    room = LONGEST_TITLE - len(f": {TITLES[project]}")
    name = forget_set if len(forget_set) <= room else f"{forget_set[: room - 1]}…"
    return f"{name}: {TITLES[project]}"


def sign_of(mark: str, project: str) -> str:
    """The end of a project's description, by which it is found again: the mark of the run's set (store.py)."""
    return f"[unlearn-ray {mark} {project}]"


class Server:
    """A Label Studio server. Raises InputError without the SDK or a token, and for a server that does not let us in."""

    def __init__(self, url: str, token: str | None = None):
        try:
            from label_studio_sdk import LabelStudio
        except ImportError as error:
            raise InputError("--server needs label-studio-sdk: pip install 'unlearn-ray[review]'") from error
        token = token or os.environ.get(TOKEN)
        if not token:
            raise InputError(f"--server: set {TOKEN} to an access token of your account (Account & Settings there)")
        self.url = url.rstrip("/")
        with self._speaking():
            self.client = LabelStudio(base_url=self.url, api_key=token)
            self.client.users.whoami()

    def create(
        self, forget_set: str, project: str, tasks: Sequence[Task], *, root: str, mark: str, overlap: int
    ) -> tuple[str, int]:
        """Makes the project, or adds to it the tasks that it lacks; returns its address, and how many were added."""
        with self._speaking():
            there = self._find(mark, project)
            if there is None:
                there = self.client.projects.create(
                    title=title_of(forget_set, project),
                    description=f"{TITLES[project]} of {forget_set}, for the run in {root} {sign_of(mark, project)}",
                    label_config=interface(project),
                    expert_instruction=INSTRUCTIONS[project],
                    show_instruction=True,
                    maximum_annotations=overlap,
                    sampling="Sequential sampling",
                ).id
            known = {row["data"].get("key") for row in self._rows(there)}  # type: ignore[arg-type]
            new = [to_label_studio(task) for task in tasks if task.key not in known]
            for start in range(0, len(new), TASKS_AT_ONCE):
                self.client.projects.import_tasks(there, request=new[start : start + TASKS_AT_ONCE])  # type: ignore[arg-type]
        return f"{self.url}/projects/{there}", len(new)

    def answers(self, mark: str, project: str) -> tuple[str, dict[int, str]] | None:
        """The project's tasks with their annotations, as JSON, and the names of the annotators by number; None where
        the server has no such project."""
        with self._speaking():
            there = self._find(mark, project)
            if there is None:
                return None
            people = {user.id: user.email for user in self.client.users.list() if user.id and user.email}
            return json.dumps(self._rows(there)), people

    def _rows(self, project: int) -> list[dict]:
        """All tasks, answered or not."""
        parts = self.client.projects.exports.download_sync(project, export_type="JSON", download_all_tasks=True)
        return json.loads(b"".join(parts))

    def _find(self, mark: str, project: str) -> int | None:
        there = self.client.projects.list(page_size=100)
        return next((one.id for one in there if sign_of(mark, project) in (one.description or "")), None)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Errors of the SDK as one line, without what it was asked."""
        try:
            yield
        except Exception as error:
            status = getattr(error, "status_code", None)
            if status in (401, 403):
                raise InputError(f"{self.url}: {TOKEN} is not let in ({status})") from error
            told = str(getattr(error, "body", None) or error or type(error).__name__).split("\n")[0][:300]
            raise StepFailed(f"{self.url}: {type(error).__name__}: {told}") from error
