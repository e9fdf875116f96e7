"""Worker groups between two trainings: kept, since the next one may come soon, until somebody needs what they hold.

What this process has asked of the cluster is counted here. The cluster's own figures come too late for steps that
follow closely, and do not say who waits for what.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import ray

LINGER_S = 60  # how long a group is kept: other programs on the cluster need CPUs too, and have no way to ask for room
PATIENCE_S = 30  # how long a training waits for a group of another; then it asks the cluster, which may grow
ENDING_S = 30


@dataclass(frozen=True)
class Shape:
    """So many workers, each with so many CPUs and GPUs, at one of the places (engine/placement.py)."""

    workers: int
    cpus: float
    gpus: float
    places: tuple = ()


class Group(Protocol):
    """What can be kept; `ended` is done when it is gone, be it that it was ended or that it died."""

    shape: Shape
    ended: Future[None]

    def end(self) -> None:
        """Begins to end it, and does not wait."""


_changed = threading.Condition()
_kept: dict[Group, threading.Timer] = {}  # the longest idle first, with what will end each
_asked: list[Shape] = []  # of everything under way
_waiting: list[Shape] = []  # of trainings that wait for a group


def take(shape: Shape) -> Group | None:
    """A kept group of that shape, which then is the caller's; None where there is room for a new one.

    Counts as asked for until give_back. Where there is neither, waits for a training that ends.
    """
    deadline = time.monotonic() + PATIENCE_S
    with _changed:
        _waiting.append(shape)
        try:
            while not (found := _matching(shape)) and _asked and not _fits(shape):
                if not _changed.wait(deadline - time.monotonic()):
                    break
        finally:
            _waiting.remove(shape)
        if found:
            _kept.pop(found).cancel()
        _ask(shape)
    return found


def give_back(shape: Shape, group: Group | None) -> None:
    """Ends what take began. A group is kept, unless others wait for what it holds."""
    with _changed:
        _asked.remove(shape)
        if group:
            timer = threading.Timer(LINGER_S, _dismiss, (group,))
            timer.daemon = True
            timer.start()
            _kept[group] = timer
            if shape not in _waiting:
                _make_room()
        _changed.notify_all()


@contextmanager
def room(*shapes: Shape) -> Iterator[None]:
    """Counts what its caller asks of the cluster; kept groups for which that leaves no room are ended."""
    with _changed:
        for shape in shapes:
            _ask(shape)
    try:
        yield
    finally:
        with _changed:
            for shape in shapes:
                _asked.remove(shape)
            _changed.notify_all()


def end_all() -> None:
    """Ends all kept groups and waits until they are gone, so that Ray can be left."""
    with _changed:
        groups = list(_kept)
        for group in groups:
            _end(group)
    wait([group.ended for group in groups], timeout=ENDING_S)


def _matching(shape: Shape) -> Group | None:
    for group in list(_kept):
        if group.ended.done():  # its node may have died meanwhile
            _kept.pop(group).cancel()
    return next((group for group in _kept if group.shape == shape), None)


def _ask(shape: Shape) -> None:
    _asked.append(shape)
    _make_room()


def _make_room() -> None:
    while _kept and not _fits(*(group.shape for group in _kept)):
        _end(next(iter(_kept)))


def _fits(*others: Shape) -> bool:
    """Whether the cluster can carry these beside all that is asked for."""
    cluster = ray.cluster_resources()
    shapes = [*_asked, *others]
    cpus, gpus = sum(one.workers * one.cpus for one in shapes), sum(one.workers * one.gpus for one in shapes)
    return cpus <= cluster.get("CPU", 0) and gpus <= cluster.get("GPU", 0)


def _dismiss(group: Group) -> None:
    with _changed:
        if group in _kept:
            _end(group)


def _end(group: Group) -> None:
    _kept.pop(group).cancel()
    group.end()
