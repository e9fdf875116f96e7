"""Pools of actors that serve one step after another: starting them, with their imports, takes longer than a small step.

They are one execution of Ray Data that does not end: its only input is a task that passes on shards as they come. A
step has the pools for itself. Afterwards they wait, with their processes, imports and, until another step comes, what
the last one loaded (engine/idle.py).
"""

import asyncio
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
from ray import cloudpickle

from unlearn_ray.engine.idle import Shape
from unlearn_ray.engine.memory import free_memory
from unlearn_ray.engine.placement import here, scheduling
from unlearn_ray.errors import StepFailed

# An execution that makes no progress for this long is dead (a pool waiting for resources that never come), not slow.
NO_PROGRESS_TIMEOUT_S = 1800

Call = tuple[Callable, dict[str, Any]]
"""A class and its arguments: what is made of them goes from Arrow table to Arrow table."""


class Pools:
    """Fixed pools of actors of these shapes; every shard goes through all of them."""

    def __init__(self, shapes: Sequence[Shape]):
        self.ended: Future[None] = Future()
        self.work: Any = ray.remote(Work).options(num_cpus=0, label_selector=here()).remote()
        dataset = ray.data.from_items([{"shards": "to come"}], override_num_blocks=1)
        dataset.set_name("shards")
        dataset.context.execution_options.verbose_progress = False
        dataset.context.enable_progress_bars = False
        dataset.context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
        dataset.context.target_max_block_size = 1  # every row goes on at once, alone
        dataset = dataset.map_batches(
            partial(_pass_on, self.work),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=1),
            num_cpus=0,
            label_selector=here(),
        )
        for at, shape in enumerate(shapes):
            dataset = dataset.map_batches(
                ShardServer,
                fn_constructor_kwargs={"work": self.work, "at": at},
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=shape.workers),
                num_cpus=shape.cpus,
                num_gpus=shape.gpus,
                **scheduling(shape.places),
            )
        self.rows = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))

    def run(self, calls: Sequence[Call], shards: Sequence[str]) -> Iterator[pa.Table]:
        """Sends the shards through the pools, which take on the calls for it; yields what becomes of each. Raises what
        a call raises.
        """
        ray.get(self.work.add.remote([cloudpickle.dumps(call) for call in calls], shards))  # type: ignore[attr-defined]
        for _ in shards:
            row = cast(pa.Table, next(self.rows))
            if error := row["error"][0].as_py():
                raise pickle.loads(error)
            yield _unpacked(row)

    def end(self) -> None:
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        try:
            self.rows.close()  # type: ignore[attr-defined]
            ray.kill(self.work)  # and with it the task that waits there
        finally:
            self.ended.set_result(None)


class Work:
    """What is to be done, as an async actor. Shards are numbered, and kept as long as the pools: the task that passes
    them on passes on the same ones where Ray Data has to repeat it.
    """

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.step = 0
        self.shards: list[tuple[int, str]] = []
        self.changed = asyncio.Condition()

    async def add(self, calls: list[bytes], shards: list[str]) -> None:
        async with self.changed:
            self.calls, self.step = calls, self.step + 1
            self.shards += [(self.step, shard) for shard in shards]
            self.changed.notify_all()

    async def shard(self, number: int) -> tuple[int, str]:
        """The shard with that number and that of its step, as soon as there is one."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.shards) > number)
            return self.shards[number]

    async def call(self, at: int) -> bytes:
        """What the pool with that number does for the step that is under way."""
        return self.calls[at]


def _pass_on(work: Any, _: pa.Table) -> Iterator[pa.Table]:
    number = 0
    while True:
        step, shard = ray.get(work.shard.remote(number))
        number += 1
        yield _packed(step, pa.table({"shard": [shard]}))


class ShardServer:
    """An actor of a pool: does for a shard what its step wants, and passes on the error of one before it."""

    def __init__(self, work: Any, at: int):
        self.work, self.at = work, at
        self.step, self.called = 0, b""
        self.call: Any = None

    def __call__(self, row: pa.Table) -> pa.Table:
        step = row["step"][0].as_py()
        if row["error"][0].as_py():
            return row
        try:
            if step != self.step:
                self._change_to(step)
            return _packed(step, self.call(_unpacked(row)))
        except Exception as error:
            return _packed(step, pa.table({}), _pickled(error))

    def _change_to(self, step: int) -> None:
        called: Any = ray.get(self.work.call.remote(self.at))
        if called != self.called:
            self.called, self.call = b"", None
            free_memory()  # before the next models, for which there may be no room otherwise
            callable_class, arguments = cloudpickle.loads(called)
            self.called, self.call = called, callable_class(**arguments)
        self.step = step


def _packed(step: int, table: pa.Table, error: bytes = b"") -> pa.Table:
    """A table as one row of another: Ray Data passes rows on one by one."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    packed = pa.array([sink.getvalue().to_pybytes()], pa.large_binary())
    return pa.table({"step": [step], "table": packed, "error": pa.array([error], pa.binary())})


def _unpacked(row: pa.Table) -> pa.Table:
    return pa.ipc.open_stream(row["table"][0].as_buffer()).read_all()


def _pickled(error: Exception) -> bytes:
    error.add_note(traceback.format_exc())
    try:
        return pickle.dumps(error)
    except Exception:
        return pickle.dumps(StepFailed(f"{type(error).__name__}: {error}"))
