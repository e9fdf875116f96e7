"""Threads that bring the same kind of work at the same time."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from unlearn_ray.engine.together import together


def bring(items: Sequence[Any], work: Callable, pause: Callable[[], None] = lambda: None) -> list:
    """together(...) of every item in a thread of its own: results, or what was raised."""
    results: list = [None] * len(items)

    def run(at: int) -> None:
        try:
            results[at] = together(work, items[at], work)
        except Exception as error:
            results[at] = error

    threads = []
    for at in range(len(items)):
        threads.append(threading.Thread(target=run, args=(at,)))
        threads[-1].start()
        pause()
    for thread in threads:
        thread.join(timeout=10)
    return results


def test_who_comes_during_a_round_goes_into_the_next_with_all_others_that_do():
    rounds, first_is_on = [], threading.Event()

    def work(items: Sequence[int]) -> Iterator[tuple[int, int]]:
        rounds.append(list(items))
        first_is_on.wait(10)
        for at, item in reversed(list(enumerate(items))):
            yield at, item * item

    def pause() -> None:
        time.sleep(0.05)
        if len(started) == 4:
            first_is_on.set()
        started.append(1)

    started: list[int] = []
    assert bring([1, 2, 3, 4, 5], work, pause) == [1, 4, 9, 16, 25]
    assert rounds == [[1], [2, 3, 4, 5]]


def test_a_result_is_there_before_its_round_is_over():
    first_has_its_result = threading.Event()

    def work(items: Sequence[int]) -> Iterator[tuple[int, int]]:
        yield 0, items[0]
        assert first_has_its_result.wait(10)

    assert together(work, 7, work) == 7
    first_has_its_result.set()


def failing(items: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """2 has an error of its own; with 3 among them nothing after the first result comes."""
    yield 0, ValueError("two") if items[0] == 2 else items[0]
    if 3 in items:
        raise OSError("three")
    for at, item in enumerate(items[1:], start=1):
        yield at, ValueError("two") if item == 2 else item


def test_what_fails_fails_alone():
    for order in ([1, 2, 3, 4], [3, 4, 2, 1], [4, 3, 2, 1]):
        results = dict(zip(order, bring(order, lambda items: failing(items)), strict=True))
        assert (results[1], results[4]) == (1, 4)
        assert isinstance(results[2], ValueError) and str(results[2]) == "two"
        assert results[3] == 3 or isinstance(results[3], OSError)


def test_work_that_forgets_an_item_is_an_error_and_nobody_waits_for_ever():
    with pytest.raises(AssertionError, match="without a result"):
        together("forgets", 1, lambda items: iter(()))
