"""The processes that a test has started, and their end."""

import os
import signal
import time
from collections.abc import Callable

import psutil


def started_in(session: int, ray_folder: str) -> set[psutil.Process]:
    """Every process of that Unix session, or with that folder of Ray's in its command line, and all that they started;
    nobody else's Ray."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) == session or any(ray_folder in word for word in process.cmdline()):
                found |= {process, *process.children(recursive=True)}
        except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            continue
    return {process for process in found if process.pid != os.getpid()}


def kill_all(find: Callable[[], set[psutil.Process]]) -> None:
    """SIGKILL for all that are found; returns when none is."""
    deadline = time.monotonic() + 30
    while left := find():
        assert time.monotonic() < deadline, left
        for process in left:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)


def kill_ours(session: int, ray_folder: str) -> None:
    """SIGKILL for what `started_in` finds."""
    kill_all(lambda: started_in(session, ray_folder))
