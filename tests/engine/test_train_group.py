"""Trainings that share a group of Ray Train workers, on real Ray with loops that train nothing."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch.distributed

from unlearn_ray.engine import idle
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.engine.train import fit
from unlearn_ray.errors import InputError

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def train(tmp_path_factory, local_ray) -> Iterator[Callable[..., tuple[Any, int]]]:
    """train(loop, config={}, workers=1, restarts=0): what fit returns."""

    def run(loop: Callable[[dict], Any], config: dict | None = None, workers: int = 1, restarts: int = 0):
        record = str(tmp_path_factory.mktemp("record") / "ray-train")
        result = fit(
            loop,
            config or {},
            name="test",
            record=record,
            workers=workers,
            cpus=1,
            gpus=0,
            places=(),
            restarts=restarts,
        )
        assert not Path(record).exists()
        return result

    yield run
    idle.end_all()


def sum_over_workers(config: dict) -> tuple[int, float]:
    """The process, and the sum of a number over the process group."""
    import torch
    import torch.distributed

    number = torch.tensor([float(config["add"] + torch.distributed.get_rank())])
    torch.distributed.all_reduce(number)
    return os.getpid(), float(number)


def refuse(config: dict) -> None:
    """Only one worker raises, the other waits for it: as in a training that goes wrong."""
    if torch.distributed.get_rank() == 1:
        raise InputError("a block of no tokens")
    torch.distributed.barrier()


def die_once(config: dict) -> int:
    """Dies the first time, after it has left something behind from which the second goes on."""
    saved = Path(config["saved"])
    if not saved.exists():
        saved.write_text("7")
        os._exit(1)
    return int(saved.read_text())


def meet(config: dict) -> int:
    """Waits until another training is at the same place."""
    mine, other = (Path(config[name]) for name in ("mine", "other"))
    mine.write_text("")
    deadline = time.monotonic() + 60
    while not other.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert other.exists()
    return os.getpid()


def test_one_training_after_another_runs_in_the_same_processes_until_one_fails(train):
    (first, total), _ = train(sum_over_workers, {"add": 1}, workers=2)
    (second, other_total), _ = train(sum_over_workers, {"add": 5}, workers=2)
    assert (total, other_total) == (3.0, 11.0)
    assert first == second
    with pytest.raises(InputError, match=r"^a block of no tokens$"):
        train(refuse, workers=2)
    (third, total), _ = train(sum_over_workers, {"add": 1}, workers=2)
    assert third != first and total == 3.0


@pytest.mark.slow
def test_a_lost_worker_counts_against_its_own_training_alone(train, tmp_path):
    assert train(die_once, {"saved": str(tmp_path / "saved")}, restarts=1) == (7, 1)
    (_, total), restarts = train(sum_over_workers, {"add": 2})
    assert (total, restarts) == (2.0, 0)


@pytest.mark.slow
def test_trainings_side_by_side_have_groups_of_their_own(train, tmp_path):
    results: list = [None, None]

    def run(number: int) -> None:
        config = {"mine": str(tmp_path / str(number)), "other": str(tmp_path / str(1 - number))}
        results[number], _ = train(meet, config)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in results and results[0] != results[1]


class Same:
    def __call__(self, shard: pa.Table) -> pa.Table:
        return shard


@pytest.mark.slow
def test_an_idle_group_stays_beside_a_small_pool_and_makes_room_for_a_large_one(train, monkeypatch):
    monkeypatch.setattr(idle, "LINGER_S", 240)  # much longer than six processes take to start
    (first, _), _ = train(sum_over_workers, {"add": 1}, workers=2)
    assert len(list(map_shards(["a"], Pool(Same, cpus=1)))) == 1
    (second, _), _ = train(sum_over_workers, {"add": 1}, workers=2)
    assert second == first
    began = time.monotonic()
    assert len(list(map_shards(list("abcdef"), Pool(Same, workers=6, cpus=1)))) == 6
    assert time.monotonic() - began < idle.LINGER_S / 2
    assert [kind.work for kind, _ in idle._kept.values()] == ["shards"]
