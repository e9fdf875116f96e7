"""What of a root can go: folders of steps that a configuration does not have, checkpoints that were not chosen."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unlearn_ray.engine import storage
from unlearn_ray.engine.leases import living_drivers
from unlearn_ray.engine.steps import Step, with_inputs
from unlearn_ray.errors import InputError

STEP_FOLDER = re.compile(r"[a-z_]+-[0-9a-f]{10}")


@dataclass(frozen=True)
class Superfluous:
    """A folder that can be removed; bytes: of the files in it."""

    path: str
    why: str
    bytes: int


def superfluous(root: str, steps: Sequence[Step], unchosen: Callable[[], Sequence[str]]) -> list[Superfluous]:
    """The folders of steps that are not among these and their inputs, and those that `unchosen` names.

    Raises InputError while a driver is at work on the root: what it writes would look like nobody's.
    """
    if drivers := living_drivers(root):
        raise InputError(f"{root} is in use by {', '.join(drivers)}; wait for it, or stop it")
    wanted = {step.folder(root) for step in with_inputs(steps)}
    there = [folder for of_set in storage.list_folders(root) for folder in storage.list_folders(of_set)]
    left = [one for one in there if STEP_FOLDER.fullmatch(one.rpartition("/")[2]) and one not in wanted]
    found = [Superfluous(one, "no step of this configuration", storage.bytes_below(one)) for one in left]
    found += [Superfluous(one, "another checkpoint was chosen", storage.bytes_below(one)) for one in unchosen()]
    dead = [storage.join(root, name) for name in (".leases", ".drivers")]
    found += [
        Superfluous(one, "of drivers that are dead", storage.bytes_below(one))
        for one in dead
        if storage.list_files(one)
    ]
    return found
