"""Groups of processes between two steps: kept, since the next may come soon, until somebody needs what they hold.

What this process has asked of the cluster is counted here. The cluster's own figures come too late for steps that
follow closely, and do not say who waits for what.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import ray

# How long a group is kept: about as long as it would take to start it again. Others need its memory, and other programs
# on the cluster its CPUs, and have no way to ask for them.
LINGER_S = 15
PATIENCE_S = 30  # how long a step waits for the group of another: two starts, its own and that of what it would end
ENDING_S = 30


@dataclass(frozen=True)
class Shape:
    """So many workers, each with so many CPUs and GPUs, at one of the places (engine/placement.py)."""

    workers: int
    cpus: float
    gpus: float
    places: tuple = ()


@dataclass(frozen=True)
class Kind:
    """Which groups can stand for one another: what they are for, and the workers that they have for it."""

    work: str
    shapes: tuple[Shape, ...]


class Group(Protocol):
    """What can be kept; `ended` is done when it is gone, be it that it was ended or that it died."""

    ended: Future[None]

    def end(self) -> None:
        """Begins to end it, and does not wait."""


_Own = TypeVar("_Own", bound=Group)

_changed = threading.Condition()
_kept: dict[Any, tuple[Kind, threading.Timer]] = {}  # the longest idle first, with what will end each
_used: list[Kind] = []  # by what is under way
_waiting: list[Kind] = []
_share = 1.0  # of the cluster that is this run's


def set_share(share: float) -> None:
    """Says how much of the cluster is this run's; the rest is that of other drivers, which cannot ask for room."""
    global _share
    _share = share


@contextmanager
def group(kind: Kind, start: Callable[[], _Own]) -> Iterator[_Own]:
    """A group for one piece of work: a kept one of its kind, or else a new one. It is kept afterwards, unless the work
    fails: then some of its workers may hang, and none is in a known state.
    """
    kept, good = _take(kind), None
    try:
        mine = kept or start()
        try:
            yield mine
        except BaseException:
            mine.end()
            raise
        good = mine
    finally:
        _give_back(kind, good)


def end_all() -> None:
    """Ends all kept groups and waits until they are gone, so that Ray can be left."""
    with _changed:
        groups = list(_kept)
        for one in groups:
            _end(one)
    wait([one.ended for one in groups], timeout=ENDING_S)


def _take(kind: Kind) -> Any:
    """A kept group, which then is the caller's, or None, for a new one. Where that would cost kept groups their place,
    and others use groups of this kind, waits for one of these. Counts as used until _give_back.
    """
    deadline = time.monotonic() + PATIENCE_S
    with _changed:
        _waiting.append(kind)
        try:
            while not (found := _matching(kind)) and kind in _used and not _fits(kind, *_kept_kinds()):
                if not _changed.wait(deadline - time.monotonic()):
                    break
        finally:
            _waiting.remove(kind)
        if found:
            _kept.pop(found)[1].cancel()
        _used.append(kind)
        _make_room()
    return found


def _give_back(kind: Kind, good: Group | None) -> None:
    with _changed:
        _used.remove(kind)
        if good:
            timer = threading.Timer(LINGER_S, _dismiss, (good,))
            timer.daemon = True
            timer.start()
            _kept[good] = kind, timer
            if kind not in _waiting:
                _make_room()
        _changed.notify_all()


def _matching(kind: Kind) -> Any:
    for one in list(_kept):
        if one.ended.done():  # its node may have died meanwhile
            _kept.pop(one)[1].cancel()
    return next((one for one, (its, _) in _kept.items() if its == kind), None)


def _make_room() -> None:
    while _kept and not _fits(*_kept_kinds()):
        _end(next(iter(_kept)))


def _kept_kinds() -> list[Kind]:
    return [kind for kind, _ in _kept.values()]


def _fits(*others: Kind) -> bool:
    """Whether the share of the cluster can carry these beside all that is used."""
    cluster = ray.cluster_resources()
    shapes = [shape for kind in (*_used, *others) for shape in kind.shapes]
    cpus, gpus = sum(one.workers * one.cpus for one in shapes), sum(one.workers * one.gpus for one in shapes)
    return cpus <= cluster.get("CPU", 0) * _share and gpus <= cluster.get("GPU", 0) * _share


def _dismiss(one: Group) -> None:
    with _changed:
        if one in _kept:
            _end(one)


def _end(one: Group) -> None:
    _kept.pop(one)[1].cancel()
    one.end()
