"""Who works on what: a driver shows that it is alive, and holds a lease on every step that it runs.

    ROOT/.drivers/DRIVER.json        a driver's sign of life, renewed while it runs; gone when it has ended
    ROOT/.leases/STAGE-DIGEST.N      which driver has the step; N counts from 0 how often it was taken over

A driver that was killed leaves both behind. On its own host its process is seen to be gone; a driver elsewhere (a new
pod, a new node) watches whether the sign is renewed: it cannot look at the process, and clocks differ between machines.
A lease is never overwritten: who takes over creates the one with the next number, which only one of several can do.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from unlearn_ray.engine import storage
from unlearn_ray.errors import StepFailed

RENEW_S = 20
LAPSE_S = 3 * RENEW_S
LINGER_S = 5  # for which the workers of a driver that died still run

OURS: set[str] = set()
"""The drivers in this process. A restarted container often gives its process the pid of the one that died."""


class Driver:
    """One run at work on a root, as long as the context of `driving` lasts."""

    def __init__(self, root: str):
        self.root, self.name = root, uuid.uuid4().hex[:12]
        self._seen: dict[str, tuple[dict, float]] = {}
        self._gone: dict[str, float] = {}

    def take(self, work: str) -> str | None:
        """A lease on the work (STAGE-DIGEST), to be released; None while a living driver has one, or where another
        was faster.
        """
        number = 0
        while owner := _read(path := _lease(self.root, work, number)):
            if self._lives(owner["driver"]):
                return None
            number += 1
        return path if storage.write_new(path, json.dumps({"driver": self.name}).encode()) else None

    def holds(self, lease: str) -> bool:
        """False where this driver gave no sign for so long (a machine asleep) that another took over."""
        work, _, number = lease.rpartition(".")
        return not storage.exists(f"{work}.{int(number) + 1}")

    def release(self, lease: str) -> None:
        """Leases of dead drivers stay below it: without them a third driver could not tell which number is the last."""
        storage.remove(lease)

    def _lives(self, name: str) -> bool:
        sign = _read(_sign(self.root, name))
        if sign is None:
            return False
        if sign["host"] == socket.gethostname():
            if _is_running(name, sign):
                return True
            since = self._gone.setdefault(name, time.monotonic())
            return time.monotonic() - since < LINGER_S
        before, since = self._seen.get(name, ({}, 0.0))
        if sign != before:
            self._seen[name] = sign, time.monotonic()
            return True
        return time.monotonic() - since < LAPSE_S


@contextmanager
def driving(root: str) -> Iterator[Driver]:
    """A driver that shows it is alive until the context ends."""
    driver, stop = Driver(root), threading.Event()
    path = _sign(root, driver.name)
    sign = {"host": socket.gethostname(), "pid": os.getpid(), "renewals": 0}
    storage.write_json(path, sign)
    OURS.add(driver.name)

    def renew() -> None:
        while not stop.wait(RENEW_S):
            sign["renewals"] += 1
            with suppress(StepFailed):  # a full disk: the step that writes reports it
                storage.write_json(path, sign)

    renewal = threading.Thread(target=renew, daemon=True)
    renewal.start()
    try:
        yield driver
    finally:
        stop.set()
        renewal.join()
        OURS.discard(driver.name)
        storage.remove(path)


def living_drivers(root: str) -> list[str]:
    """The drivers that seem to be at work on a root, as "process PID on HOST"; one on another host is believed."""
    return [f"process {sign['pid']} on {sign['host']}" for sign in _living(root).values()]


def leased(root: str) -> set[str]:
    """The work (STAGE-DIGEST) that drivers who seem to live have leases on: two listings, however many steps."""
    living = _living(root)
    held = ((path, _read(path)) for path in storage.list_files(storage.join(root, ".leases")) if living)
    return {PurePosixPath(path).name.rpartition(".")[0] for path, owner in held if owner and owner["driver"] in living}


def _living(root: str) -> dict[str, dict]:
    found = {}
    for path in storage.list_files(storage.join(root, ".drivers")):
        name, sign = PurePosixPath(path).stem, _read(path)
        if sign and (sign["host"] != socket.gethostname() or _is_running(name, sign)):
            found[name] = sign
    return found


def _sign(root: str, driver: str) -> str:
    return storage.join(root, ".drivers", f"{driver}.json")


def _lease(root: str, work: str, number: int) -> str:
    return storage.join(root, ".leases", f"{work}.{number}")


def _read(path: str) -> dict | None:
    try:
        return storage.read_json(path)
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _is_running(name: str, sign: dict) -> bool:
    if sign["pid"] == os.getpid():
        return name in OURS
    try:
        os.kill(sign["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and somebody else's
    return True
