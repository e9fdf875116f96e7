"""Worker groups between two trainings: kept, since the next one may come soon, until somebody needs what they hold.

An idle group holds CPUs and GPUs, so whoever asks the cluster for some does it inside of `room`.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import ray

LINGER_S = 60  # how long one is kept: other programs on the cluster need CPUs too, and have no way to ask for room
ENDING_S = 30


@dataclass(frozen=True)
class Shape:
    """What a group holds: so many workers, each with so many CPUs and GPUs."""

    workers: int
    cpus: float
    gpus: float

    @property
    def total(self) -> tuple[float, float]:
        """CPUs and GPUs of all workers."""
        return self.workers * self.cpus, self.workers * self.gpus


class Group(Protocol):
    """What can be kept; `ended` is done when it is gone, be it that it was ended or that it died."""

    shape: Shape
    ended: Future[None]

    def end(self) -> None:
        """Begins to end it, and does not wait."""


_lock = threading.Lock()
_kept: dict[Group, threading.Timer] = {}  # the longest idle first, with what will end each
_asked: list[tuple[float, float]] = []  # CPUs and GPUs, of everything under way


def keep(group: Group) -> None:
    """Keeps a group that has nothing to do."""
    dismissal = threading.Timer(LINGER_S, _dismiss, (group,))
    dismissal.daemon = True
    with _lock:
        _kept[group] = dismissal
    dismissal.start()


def take(shape: Shape) -> Group | None:
    """A kept group of that shape, which then is the caller's, if there is one."""
    with _lock:
        for group in list(_kept):
            if group.ended.done():  # its node may have died meanwhile
                _kept.pop(group).cancel()
            elif group.shape == shape:
                _kept.pop(group).cancel()
                return group
    return None


@contextmanager
def room(cpus: float, gpus: float) -> Iterator[None]:
    """For as long as its caller asks the cluster for so much; kept groups for which that leaves no room are ended, the
    longest idle first.

    Counted by what this process itself asks for: the cluster's own figures come too late for steps that follow closely.
    """
    asks = (cpus, gpus)
    with _lock:
        _asked.append(asks)
        cluster = ray.cluster_resources() if _kept else {}
        while _kept and not _fits(cluster):
            _end(next(iter(_kept)))
    try:
        yield
    finally:
        with _lock:
            _asked.remove(asks)


def end_all() -> None:
    """Ends all kept groups and waits until they are gone, so that Ray can be left."""
    with _lock:
        groups = list(_kept)
        for group in groups:
            _end(group)
    wait([group.ended for group in groups], timeout=ENDING_S)


def _fits(cluster: Mapping[str, float]) -> bool:
    cpus, gpus = map(sum, zip(*_asked, *(group.shape.total for group in _kept), strict=True))
    return cpus <= cluster.get("CPU", 0) and gpus <= cluster.get("GPU", 0)


def _dismiss(group: Group) -> None:
    with _lock:
        if group in _kept:
            _end(group)


def _end(group: Group) -> None:
    _kept.pop(group).cancel()
    group.end()
