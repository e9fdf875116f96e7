"""Steps: what one is, what identifies it, when it is done, and what it leaves (engine/schedule.py runs many of them).

A step is done when its folder holds a manifest with its digest. It is written last, so a killed step runs again.
"""

import hashlib
import json
import math
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any, Literal

from unlearn_ray.engine import storage
from unlearn_ray.engine.events import now
from unlearn_ray.engine.leases import leased
from unlearn_ray.errors import InputError, StepFailed

LIBRARIES = ("unlearn-ray", "ray", "torch", "transformers", "accelerate", "peft", "pyarrow")
SECRET = re.compile(r"(^|[_-])(api[_-]?key|access[_-]?key|token|secret|password)([_-]|$)", re.IGNORECASE)
NO_SECRETS = ("leading_token",)
READERS = 32  # threads that look at step folders: an object store answers each of them in tens of milliseconds

State = Literal["to do", "running", "done", "ran", "failed", "skipped"]


@dataclass
class StepRun:
    """What a stage function gets: the folder to write to, and the folder of each input by name."""

    out: str
    inputs: dict[str, str]

    def below_root(self, path: str) -> str:
        """A path in a step's folder as it is called below the root: what a run computes names no place outside."""
        return path.removeprefix(root_of(self.out) + "/")


def root_of(folder: str) -> str:
    """The root of a run, from the folder of a step."""
    return folder.rstrip("/").rsplit("/", 2)[0]


@dataclass(frozen=True)
class Holds:
    """What a step holds of the cluster, all at once, while it runs: the fixed pools of its actors. One that computes in
    this process holds nothing.
    """

    cpus: float = 0
    gpus: float = 0

    def fits(self, free: "Holds") -> bool:
        return self.cpus <= free.cpus and self.gpus <= free.gpus

    def __sub__(self, other: "Holds") -> "Holds":
        return Holds(self.cpus - other.cpus, self.gpus - other.gpus)


@dataclass(frozen=True, eq=False)
class Step:
    """One piece of work for one forget set, identified by all that its result depends on, and by nothing else.

    version is raised by the author of a stage when the same params come to mean another result. contents maps documents
    and files to their sha256. run returns figures for the manifest (plain JSON; row counts under "rows").
    holds says what it holds while it runs; it is asked when the step can start, and Ray is there.
    Raises InputError for params that have no one JSON form, and for names that look like a key or a password.
    """

    stage: str
    version: int
    forget_set: str
    params: Mapping[str, Any]
    run: Callable[[StepRun], dict]
    inputs: Mapping[str, "Step"] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    holds: Callable[[], Holds] = Holds

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

    @property
    def name(self) -> str:
        return f"{self.stage}-{self.digest}"

    def folder(self, root: str) -> str:
        return storage.join(root, self.forget_set, self.name)


@dataclass(frozen=True)
class Outcome:
    """Where a step stands. folder is where its result lies: with another forget set where that has the same step.
    progress: what a running step says of itself in progress.json, with "step", "steps" and "seconds_left".
    began: when its last attempt did, in ISO 8601, where it is not done.
    """

    step: Step
    state: State
    folder: str
    seconds: float = 0.0
    error: BaseException | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    began: str = ""


def step_states(root: str, steps: Sequence[Step]) -> list[Outcome]:
    """Where the steps and their inputs stand on disk, inputs first: "done", "failed", "running" or "to do"."""
    ordered = with_inputs(steps)
    states = states_by_digest(root, ordered)
    return [replace(states[step.digest], step=step) for step in ordered]


def with_inputs(steps: Sequence[Step]) -> list[Step]:
    """The steps and all that they need, inputs first, each once."""
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


def states_by_digest(root: str, ordered: Sequence[Step]) -> dict[str, Outcome]:
    """One state a digest: of several steps with one digest, the one that is done, else the first."""
    running = leased(root)
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(lambda step: state_on_disk(root, step, step.name in running), ordered))
    states: dict[str, Outcome] = {}
    for outcome in found:
        known = states.get(outcome.step.digest)
        if known is None or (known.state != "done" and outcome.state == "done"):
            states[outcome.step.digest] = outcome
    return states


def state_on_disk(root: str, step: Step, running: bool = False) -> Outcome:
    """running: whether a living driver has the step."""
    folder = step.folder(root)
    manifest = read_notes(storage.join(folder, "manifest.json"))
    if manifest.get("digest") == step.digest:
        return Outcome(step, "done", folder, manifest["seconds"])
    attempt = read_notes(storage.join(folder, "attempt.json"))
    began = attempt.get("started", "")
    if attempt and running:
        progress = read_notes(storage.join(folder, "progress.json"))
        return Outcome(step, "running", folder, seconds_since(began), progress=progress, began=began)
    if attempt.get("error"):
        return Outcome(step, "failed", folder, attempt["seconds"], StepFailed(attempt["error"]), began=began)
    return Outcome(step, "to do", folder, began=began)


def seconds_since(time: str) -> float:
    return max((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds(), 0.0)


def read_notes(path: str) -> dict:
    """A manifest, or another of a step's JSON files; empty where there is none, or it was cut short."""
    try:
        return storage.read_json(path)
    except (FileNotFoundError, ValueError):
        return {}


def attempt(root: str, step: Step, inputs: dict[str, str], still_ours: Callable[[], bool] = lambda: True) -> Outcome:
    """Run one step and write its manifest; until then attempt.json tells `status` what became of it.

    still_ours: whether the lease on it holds; a driver that lost it leaves the step to the one that took over.
    """
    folder, began, clock = step.folder(root), now(), time.monotonic()
    notes = {"started": began, "seconds": 0.0, "error": None}
    path = storage.join(folder, "attempt.json")
    try:
        storage.make_folder(folder)
        storage.write_json(path, notes)
        figures = step.run(StepRun(folder, inputs))
        seconds = round(time.monotonic() - clock, 3)
        if not still_ours():
            raise StepFailed("this driver gave no sign of life for so long that another took the step over")
        manifest = _manifest(root, step, inputs, figures) | {"seconds": seconds, "started": began, "finished": now()}
        storage.write_json(storage.join(folder, "manifest.json"), manifest)
        storage.remove(path)
        return Outcome(step, "ran", folder, seconds, began=began)
    except BaseException as error:  # whatever ends a step: unheard of, the driver would wait for ever
        seconds = round(time.monotonic() - clock, 3)
        with suppress(StepFailed):  # on a full disk the error itself matters more
            storage.write_json(path, notes | {"seconds": seconds, "error": f"{type(error).__name__}: {error}"})
        return Outcome(step, "failed", folder, seconds, error, began=began)


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
        "libraries": dict(_libraries()),
    }


@cache
def _libraries() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


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
