"""Steps: what one is, what identifies it, when it is done, and how many of them run.

A step is done when its folder holds a manifest with its digest. It is written last, so a killed step runs again.
"""

import hashlib
import json
import math
import platform
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

from unlearn_ray.engine import storage
from unlearn_ray.engine.lock import is_driven, only_driver
from unlearn_ray.errors import InputError, StepFailed

LIBRARIES = ("unlearn-ray", "ray", "torch", "transformers", "accelerate", "peft", "pyarrow")
SECRET = re.compile(r"(^|[_-])(api[_-]?key|access[_-]?key|token|secret|password)([_-]|$)", re.IGNORECASE)
NO_SECRETS = ("leading_token",)

State = Literal["to do", "running", "done", "ran", "failed", "skipped"]


@dataclass
class StepRun:
    """What a stage function gets: the folder to write to, and the folder of each input by name."""

    out: str
    inputs: dict[str, str]


@dataclass(frozen=True, eq=False)
class Step:
    """One piece of work for one forget set, identified by all that its result depends on, and by nothing else.

    version is raised by the author of a stage when the same params come to mean another result. contents maps documents
    and files to their sha256. run returns figures for the manifest (plain JSON; row counts under "rows").
    Raises InputError for params that have no one JSON form, and for names that look like a key or a password.
    """

    stage: str
    version: int
    forget_set: str
    params: Mapping[str, Any]
    run: Callable[[StepRun], dict]
    inputs: Mapping[str, "Step"] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", _plain(self.params, f"{self.stage}.params"))

    @cached_property
    def digest(self) -> str:
        """First 10 hex digits of the sha256 of the canonical JSON of what identifies the step."""
        identity = {
            "stage": self.stage,
            "version": self.version,
            "params": self.params,
            "inputs": {name: step.digest for name, step in self.inputs.items()},
            "contents": dict(self.contents),
        }
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]

    def folder(self, root: str) -> str:
        return storage.join(root, self.forget_set, f"{self.stage}-{self.digest}")


@dataclass(frozen=True)
class Outcome:
    """Where a step stands. folder is where its result lies: with another forget set where that has the same step.
    progress: what a running step says of itself in progress.json, with "step", "steps" and "seconds_left".
    """

    step: Step
    state: State
    folder: str
    seconds: float = 0.0
    error: BaseException | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)


def run_steps(
    root: str,
    steps: Sequence[Step],
    *,
    max_parallel: int = 1,
    on_event: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run what is not done of the steps and their inputs, inputs first; one outcome a step, in that order.

    Steps with one digest run once. A failed step leaves those that need it skipped and the others running.
    on_event hears, in this thread, of every step that starts ("running") and of every outcome.
    Raises InputError while another driver works on this root.
    """
    ordered = _with_inputs(steps)
    outcomes: dict[str, Outcome] = {}

    def record(outcome: Outcome) -> None:
        outcomes[outcome.step.digest] = outcome
        on_event(outcome)

    with only_driver(root):
        states = _by_digest(root, ordered)
        for outcome in states.values():
            if outcome.state == "done":
                record(outcome)
        waiting = {digest: outcome.step for digest, outcome in states.items() if outcome.state != "done"}
        running: set[str] = set()
        finished: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        while waiting or running:
            for digest, step in list(waiting.items()):
                inputs = {name: outcomes.get(given.digest) for name, given in step.inputs.items()}
                if any(given and given.state in ("failed", "skipped") for given in inputs.values()):
                    del waiting[digest]
                    record(Outcome(step, "skipped", step.folder(root)))
                elif len(running) < max_parallel and all(inputs.values()):
                    del waiting[digest]
                    running.add(digest)
                    on_event(Outcome(step, "running", step.folder(root)))
                    folders = {name: given.folder for name, given in inputs.items() if given}
                    # A daemon, so that an interrupt of this thread ends the program and not only the waiting.
                    threading.Thread(target=_attempt, args=(root, step, folders, finished), daemon=True).start()
            if running:
                outcome = finished.get()
                running.remove(outcome.step.digest)
                record(outcome)
    return [replace(outcomes[step.digest], step=step) for step in ordered]


def step_states(root: str, steps: Sequence[Step]) -> list[Outcome]:
    """Where the steps and their inputs stand on disk, inputs first: "done", "failed", "running" or "to do"."""
    ordered = _with_inputs(steps)
    states = _by_digest(root, ordered)
    return [replace(states[step.digest], step=step) for step in ordered]


def _with_inputs(steps: Sequence[Step]) -> list[Step]:
    ordered: dict[tuple[str, str], Step] = {}

    def visit(step: Step) -> None:
        key = (step.forget_set, step.digest)
        if key not in ordered:
            for given in step.inputs.values():
                visit(given)
            ordered[key] = step

    for step in steps:
        visit(step)
    return list(ordered.values())


def _by_digest(root: str, ordered: Sequence[Step]) -> dict[str, Outcome]:
    """One state a digest: of several steps with one digest, the one that is done, else the first."""
    driven = is_driven(root)
    states: dict[str, Outcome] = {}
    for step in ordered:
        known = states.get(step.digest)
        if known is None or known.state != "done":
            found = _on_disk(root, step, driven)
            if known is None or found.state == "done":
                states[step.digest] = found
    return states


def _on_disk(root: str, step: Step, driven: bool) -> Outcome:
    folder = step.folder(root)
    manifest = _read(storage.join(folder, "manifest.json"))
    if manifest.get("digest") == step.digest:
        return Outcome(step, "done", folder, manifest["seconds"])
    attempt = _read(storage.join(folder, "attempt.json"))
    if attempt.get("error"):
        return Outcome(step, "failed", folder, attempt["seconds"], StepFailed(attempt["error"]))
    if attempt and driven:
        return Outcome(step, "running", folder, progress=_read(storage.join(folder, "progress.json")))
    return Outcome(step, "to do", folder)


def _read(path: str) -> dict:
    try:
        return storage.read_json(path)
    except (FileNotFoundError, ValueError):
        return {}


def _attempt(root: str, step: Step, inputs: dict[str, str], finished: queue.SimpleQueue[Outcome]) -> None:
    """Run one step and write its manifest; until then attempt.json tells `status` what became of it."""
    folder, started, clock = step.folder(root), _now(), time.monotonic()
    attempt = {"started": started, "seconds": 0.0, "error": None}
    attempt_path = storage.join(folder, "attempt.json")
    try:
        storage.make_folder(folder)
        storage.write_json(attempt_path, attempt)
        figures = step.run(StepRun(folder, inputs))
        seconds = round(time.monotonic() - clock, 3)
        manifest = _manifest(root, step, inputs, figures) | {"seconds": seconds, "started": started, "finished": _now()}
        storage.write_json(storage.join(folder, "manifest.json"), manifest)
        storage.remove(attempt_path)
        outcome = Outcome(step, "ran", folder, seconds)
    except BaseException as error:  # whatever ends a step: unheard of, the driver would wait for ever
        seconds = round(time.monotonic() - clock, 3)
        with suppress(StepFailed):  # on a full disk the error itself matters more
            storage.write_json(
                attempt_path, attempt | {"seconds": seconds, "error": f"{type(error).__name__}: {error}"}
            )
        outcome = Outcome(step, "failed", folder, seconds, error)
    finished.put(outcome)


def _manifest(root: str, step: Step, inputs: Mapping[str, str], figures: Mapping[str, Any]) -> dict:
    return {
        "stage": step.stage,
        "version": step.version,
        "digest": step.digest,
        "forget_set": step.forget_set,
        "params": step.params,
        "inputs": {
            name: {"digest": given.digest, "folder": inputs[name].removeprefix(root.rstrip("/") + "/")}
            for name, given in step.inputs.items()
        },
        "contents": dict(step.contents),
        "rows": figures.get("rows", {}),
        "figures": {name: value for name, value in figures.items() if name != "rows"},
        "libraries": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any, place: str) -> Any:
    """The value in the types of JSON, where there is one way to write it."""
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}.{at}") for at, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise InputError(f"{place}: {value!r} has no canonical JSON; give text, finite numbers, lists and mappings")
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"{place}: the key {key!r} is not a string")
        if SECRET.search(key) and key not in NO_SECRETS:
            raise InputError(
                f"{place}.{key}: keys and passwords belong in the environment, not in what is written down"
            )
    return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
