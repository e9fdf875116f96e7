"""Groups that are kept between two steps, and who gets what they hold; here groups hold nothing but a name."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from unlearn_ray.engine import idle
from unlearn_ray.engine.idle import Kind, Shape, group

ONE = Kind("training", (Shape(1, 1, 0),))  # of six CPUs
FOUR = Kind("training", (Shape(2, 2, 0),))
POOLS = Kind("shards", (Shape(2, 1, 0), Shape(4, 0.5, 0)))


class Idle:
    def __init__(self) -> None:
        self.ended: Future[None] = Future()

    def end(self) -> None:
        self.ended.set_result(None)


@pytest.fixture(autouse=True)
def nothing_kept(local_ray) -> Iterator[None]:
    yield
    idle.end_all()
    assert not idle._kept and not idle._used and not idle._waiting


def used(kind: Kind) -> Idle:
    """The group that a piece of work had, which has ended."""
    with group(kind, Idle) as mine:
        return mine


def test_the_next_work_of_a_kind_gets_the_group_of_the_last():
    mine = used(FOUR)
    assert used(FOUR) is mine
    assert used(ONE) is not mine and not mine.ended.done()


def test_a_group_that_died_or_failed_is_not_handed_out():
    dead = used(FOUR)
    dead.end()
    with pytest.raises(ValueError), group(FOUR, Idle) as failed:
        assert failed is not dead
        raise ValueError
    assert failed.ended.done()
    assert used(FOUR) not in (dead, failed)


def test_as_many_groups_are_ended_as_others_need_the_longest_idle_first():
    old, new = used(FOUR), used(ONE)
    with group(POOLS, Idle):
        assert old.ended.done() and not new.ended.done()


def test_a_group_for_which_there_is_no_room_is_not_kept():
    with group(POOLS, Idle):
        assert used(FOUR).ended.done()


def test_a_share_of_the_cluster_keeps_no_more_than_that():
    idle.set_share(0.5)
    old = used(ONE)
    used(Kind("training", (Shape(3, 1, 0),)))
    idle.set_share(1)
    assert old.ended.done()


def test_work_that_finds_no_room_waits_for_the_group_of_another():
    with ThreadPoolExecutor(1) as other:
        with group(FOUR, Idle) as mine:
            found = other.submit(used, FOUR)
            time.sleep(0.2)
            assert not found.done()
        assert found.result(5) is mine


def test_work_does_not_wait_for_ever_for_others(monkeypatch):
    monkeypatch.setattr(idle, "PATIENCE_S", 0.1)
    with group(FOUR, Idle) as mine, group(FOUR, Idle) as another:
        assert mine is not another


def test_a_group_that_nobody_takes_is_ended(monkeypatch):
    monkeypatch.setattr(idle, "LINGER_S", 0.1)
    used(ONE).ended.result(timeout=5)
