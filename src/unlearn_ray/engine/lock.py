"""One driver per root: two would write into the same folders. A lock file names the driver, which keeps renewing it.

A driver that was killed leaves its lock behind. On its own host its process is seen to be gone; another host (a new
pod, a new node) waits whether the lock is renewed: it cannot look at the process, and clocks differ between machines.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from unlearn_ray.engine import storage
from unlearn_ray.errors import InputError, StepFailed

RENEW_S = 20
LAPSE_S = 3 * RENEW_S

# Told apart from the pid, because a restarted container often gives its process the pid of the one that died.
PROCESS = uuid.uuid4().hex


@contextmanager
def only_driver(root: str) -> Iterator[None]:
    """Hold the lock of a root; that of a dead driver is taken over. Raises InputError while another driver lives."""
    path = _path(root)
    if not storage.write_new(path, _record(0)):
        owner = _owner(path)
        if owner and _lives(path, owner):
            raise InputError(
                f"{root} is in use by process {owner['pid']} on {owner['host']}; wait for it, or stop it and run again"
            )
        storage.write_atomic(path, _record(0))
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        storage.remove(path)


def is_driven(root: str) -> bool:
    """Whether a driver seems to be at work on a root; one on another host is believed."""
    owner = _owner(_path(root))
    return owner is not None and (owner["host"] != socket.gethostname() or _is_running(owner))


def _path(root: str) -> str:
    return storage.join(root, ".lock")


def _record(renewals: int) -> bytes:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "process": PROCESS, "renewals": renewals}
    return json.dumps(owner).encode()


def _owner(path: str) -> dict | None:
    """The driver that the lock names; None without a lock, or where its writer died before it had written it."""
    try:
        return storage.read_json(path)
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _lives(path: str, owner: dict) -> bool:
    if owner["host"] == socket.gethostname():
        return _is_running(owner)
    time.sleep(LAPSE_S)
    return _owner(path) not in (owner, None)


def _is_running(owner: dict) -> bool:
    if owner["pid"] == os.getpid():
        return owner["process"] == PROCESS
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and somebody else's
    return True


def _renew(path: str, stop: threading.Event) -> None:
    renewals = 0
    while not stop.wait(RENEW_S):
        renewals += 1
        with suppress(StepFailed):  # a full disk: the step that writes reports it
            storage.write_atomic(path, _record(renewals))
