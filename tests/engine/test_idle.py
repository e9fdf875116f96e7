"""Groups that are kept between two trainings, and who gets what they hold; here groups hold nothing but a name."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from unlearn_ray.engine import idle
from unlearn_ray.engine.idle import Shape

ONE = Shape(1, 1, 0)  # of six CPUs
FOUR = Shape(2, 2, 0)


class Idle:
    def __init__(self, shape: Shape):
        self.shape, self.ended = shape, Future()

    def end(self) -> None:
        self.ended.set_result(None)


@pytest.fixture(autouse=True)
def nothing_kept(local_ray) -> Iterator[None]:
    yield
    idle.end_all()
    assert not idle._kept and not idle._asked and not idle._waiting


def trained(shape: Shape) -> Idle:
    """A training that took a group, or a new one, and has ended."""
    group = idle.take(shape) or Idle(shape)
    idle.give_back(shape, group)
    return group


def test_the_next_training_of_a_shape_gets_the_group_of_the_last():
    group = trained(FOUR)
    assert trained(FOUR) is group
    assert trained(ONE) is not group and not group.ended.done()


def test_a_group_that_died_or_failed_is_not_handed_out():
    group = trained(FOUR)
    group.end()
    assert idle.take(FOUR) is None
    idle.give_back(FOUR, None)
    assert idle.take(FOUR) is None
    idle.give_back(FOUR, None)


def test_a_pool_ends_as_many_groups_as_it_needs_the_longest_idle_first():
    old, new = trained(FOUR), trained(ONE)
    with idle.room(Shape(4, 0.5, 0)):
        assert old.ended.done() and not new.ended.done()


def test_a_group_for_whose_cpus_others_wait_is_not_kept():
    assert idle.take(FOUR) is None
    group = Idle(FOUR)
    with idle.room(Shape(3, 1, 0)):
        idle.give_back(FOUR, group)
        assert group.ended.done()


def test_a_training_that_finds_no_room_waits_for_the_group_of_another():
    assert idle.take(FOUR) is None
    found: list = []
    waiter = threading.Thread(target=lambda: found.append(idle.take(FOUR)))
    waiter.start()
    time.sleep(0.2)
    assert not found
    group = Idle(FOUR)
    idle.give_back(FOUR, group)
    waiter.join(5)
    assert found == [group]
    idle.give_back(FOUR, None)


def test_a_training_does_not_wait_for_ever_for_others(monkeypatch):
    monkeypatch.setattr(idle, "PATIENCE_S", 0.1)
    assert idle.take(FOUR) is None and idle.take(FOUR) is None
    idle.give_back(FOUR, None)
    idle.give_back(FOUR, None)


def test_a_group_that_nobody_takes_is_ended(monkeypatch):
    monkeypatch.setattr(idle, "LINGER_S", 0.1)
    group = trained(ONE)
    group.ended.result(timeout=5)
