"""Why a step is done again: what its manifest from another time says, beside what it would say now."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import READERS, Step, read_notes, states_by_digest, with_inputs

SHOWN = 3  # changes that are told of one step


def why_again(root: str, steps: Sequence[Step]) -> list[str]:
    """A line for every step that is not done, though its stage was done for the same set before, with what changed.

    Stages of a set whose manifests were removed, and those that are new, are not among them.
    """
    ordered = with_inputs(steps)
    states = states_by_digest(root, ordered)
    to_do = {step.digest: step for step in ordered if states[step.digest].state != "done"}
    with ThreadPoolExecutor(READERS) as readers:
        folders = {step.forget_set for step in to_do.values()}
        listed = readers.map(lambda name: storage.list_folders(storage.join(root, name)), folders)
        there = dict(zip(folders, listed, strict=True))
        earlier = list(readers.map(lambda step: _earlier(step, there[step.forget_set]), to_do.values()))
    again = {step.digest for step, manifest in zip(to_do.values(), earlier, strict=True) if manifest}
    lines = []
    for step, manifest in zip(to_do.values(), earlier, strict=True):
        if manifest:
            found = _changes(step, manifest, again)
            more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
            lines.append(f"{step.stage} of {step.forget_set}: " + "; ".join([*found[:SHOWN], *more]))
    return lines


def _earlier(step: Step, folders: Sequence[str]) -> dict[str, Any] | None:
    """The newest manifest of the stage and set with another digest."""
    prefix = f"{step.stage}-"
    same = [folder for folder in folders if folder.rpartition("/")[2].rpartition("-")[0] + "-" == prefix]
    found = [read_notes(storage.join(folder, "manifest.json")) for folder in same]
    return max((one for one in found if one and one["digest"] != step.digest), key=_finished, default=None)


def _finished(manifest: Mapping[str, Any]) -> str:
    return manifest["finished"]


def _changes(step: Step, manifest: Mapping[str, Any], again: set[str]) -> list[str]:
    changes = []
    if manifest["version"] != step.version:
        changes.append("the stage computes something else now")
    for what, before, now in (
        ("", manifest["params"], step.params),
        ("the content of ", manifest["contents"], dict(step.contents)),
    ):
        for key in sorted(before.keys() | now.keys()):
            if key not in now or key not in before:
                changes.append(f"{what}{key} is {'new' if key in now else 'no longer there'}")
            elif before[key] != now[key]:
                changes.append(f"{what}{key} changed" + ("" if what else f" from {before[key]!r} to {now[key]!r}"))
    for name in sorted(manifest["inputs"].keys() | step.inputs.keys()):
        before, now = manifest["inputs"].get(name), step.inputs.get(name)
        if now is None or before is None:
            changes.append(f"{name} is {'new' if now else 'no longer there'}")
        elif before["digest"] != now.digest:
            same_kind = before["folder"].rpartition("-")[0] == f"{now.forget_set}/{now.stage}"
            if same_kind and now.digest in again:
                changes.append(f"{name} is made again")
            else:
                changes.append(f"{name} is {now.forget_set}/{now.name}, was {before['folder']}")
    return changes
