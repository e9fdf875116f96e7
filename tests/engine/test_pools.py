"""Pools of actors that go from step to step, on real Ray with actors that compute nothing."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from unlearn_ray.engine import idle
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.errors import InputError

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def new_pools(local_ray) -> Iterator[None]:
    yield
    idle.end_all()


class Signed:
    """Puts a word, how often it did so, and its process beside what it is given."""

    def __init__(self, word: str):
        self.word, self.times = word, 0

    def __call__(self, table: pa.Table) -> pa.Table:
        self.times += 1
        for name, value in {"word": self.word, "times": self.times, "process": os.getpid()}.items():
            table = table.append_column(f"{name} {len(table.column_names)}", pa.array([value] * len(table)))
        return table


class Refusing:
    def __call__(self, table: pa.Table) -> pa.Table:
        if table["shard"][0].as_py() == "bad":
            raise InputError("a bad shard")
        return table


class Missing:
    def __init__(self) -> None:
        raise InputError("no such model")


class DyingOnce:
    def __init__(self, trace: str):
        self.trace = Path(trace)

    def __call__(self, table: pa.Table) -> pa.Table:
        if not self.trace.exists():
            self.trace.write_text("")
            os._exit(1)
        return table


class Slow:
    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(1)
        return table


def shards_through(*pools: Pool, shards: tuple[str, ...] = ("a", "b", "c")) -> list[str]:
    return sorted(row["shard"] for row in map_shards(shards, *pools))


def signed(word: str, **details) -> Pool:
    return Pool(Signed, {"word": word}, **details)


def test_steps_go_through_the_same_processes_and_what_is_loaded_serves_the_same_call():
    first = list(map_shards(["a", "b"], signed("one"), signed("two", cpus=0.5)))
    assert sorted(row["shard"] for row in first) == ["a", "b"]
    [process] = {row["process 3"] for row in first}
    [(word, other)] = {(row["word 4"], row["process 6"]) for row in first}
    assert word == "two" and other != process
    [again] = map_shards(["c"], signed("one"), signed("new", cpus=0.5))
    assert (again["times 2"], again["process 3"]) == (3, process)
    assert (again["word 4"], again["times 5"], again["process 6"]) == ("new", 1, other)


def test_every_shard_goes_through_whatever_the_number_of_actors():
    shards = tuple(f"{number:03}" for number in range(40))
    rows = list(map_shards(shards, signed("one", workers=3), signed("two", workers=2, cpus=0.5)))
    assert sorted(row["shard"] for row in rows) == list(shards)
    assert len({row["process 3"] for row in rows}) > 1


@pytest.mark.parametrize(("failing", "message"), [(Refusing, "a bad shard"), (Missing, "no such model")])
def test_an_error_is_raised_as_itself_and_the_next_step_has_other_processes(failing: Callable, message: str):
    second = signed("two", cpus=0.5)
    [before] = map_shards(["good"], signed("one"), second)
    with pytest.raises(InputError) as raised:
        list(map_shards(["good", "bad", "good"], Pool(failing), second))
    assert str(raised.value) == message
    [after] = map_shards(["good"], signed("one"), second)
    assert after["process 3"] != before["process 3"]


def test_the_shard_of_an_actor_that_dies_is_done_by_another(tmp_path):
    assert shards_through(Pool(DyingOnce, {"trace": f"{tmp_path}/trace"})) == ["a", "b", "c"]
    assert shards_through(signed("one")) == ["a", "b", "c"]


def test_who_stops_listening_frees_the_pools_at_once():
    through = map_shards([str(number) for number in range(400)], Pool(Slow, workers=2, cpus=3))  # 200 s
    next(through)
    through.close()
    began = time.monotonic()
    assert shards_through(signed("one", cpus=4)) == ["a", "b", "c"]
    assert time.monotonic() - began < 60
