"""Ray Data over shards: a shard is the unit of work, of a file and of restart, and passes through pools of actors
whole.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import ray
from ray.exceptions import RayTaskError

from unlearn_ray.config import Resources
from unlearn_ray.engine.idle import Shape, room
from unlearn_ray.engine.placement import Place, places, scheduling
from unlearn_ray.engine.session import gpus_per_scorer
from unlearn_ray.errors import InputError, StepFailed

# A pipeline that makes no progress for this long is dead (a pool waiting for resources that never come), not slow.
NO_PROGRESS_TIMEOUT_S = 1800
OWN_ERROR = re.compile(rf"^{InputError.__module__}\.(?P<type>InputError|StepFailed): (?P<message>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Pool:
    """A fixed pool of actors that each hold one `callable_class(**arguments)`, a function from Arrow table to Arrow
    table. places: see engine/placement.py.

    A pool on GPUs takes no CPUs: with CPUs it could starve the stages that feed it, and wait for them for ever.
    """

    callable_class: Callable
    arguments: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    cpus: float = 1
    gpus: float = 0
    places: Sequence[Place] = ()

    def shape(self, shards: int) -> Shape:
        """What the pool holds for so many shards."""
        return Shape(min(self.workers, shards), 0 if self.gpus else self.cpus, self.gpus)


def scoring_pool(
    callable_class: Callable, arguments: dict[str, Any], resources: Resources, workers: int | None = None
) -> Pool:
    """A pool whose actors score text with whole models; `resources.workers` of them, or so many."""
    gpus = gpus_per_scorer(resources)
    return Pool(
        callable_class,
        arguments,
        workers=workers or resources.workers,
        cpus=resources.cpus_per_worker,
        gpus=gpus,
        places=places(resources, "score", gpus),
    )


def map_shards(name: str, shards: Sequence[str], *pools: Pool) -> Iterator[dict]:
    """Sends every shard (a description as text, column "shard") through the pools; yields the rows of the last one.

    A shard is one row from pool to pool (see one_row), and batch_size=1 hands over one at a time: so what an actor
    computes together depends on the shard alone, not on the number of actors or the order of completion. Whole blocks
    (batch_size=None) would do the same, but Ray refuses them where there are GPUs.
    """
    if not shards:
        return
    dataset = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    dataset.set_name(name)
    dataset.context.execution_options.verbose_progress = False
    dataset.context.enable_progress_bars = False
    dataset.context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    shapes = [pool.shape(len(shards)) for pool in pools]
    for pool, shape in zip(pools, shapes, strict=True):
        dataset = dataset.map_batches(
            pool.callable_class,
            fn_constructor_kwargs=pool.arguments,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=shape.workers),
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            **scheduling(pool.places),
        )
    with own_errors(), room(*shapes):
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from cast(pa.Table, batch).to_pylist()


def one_row(table: pa.Table) -> pa.Table:
    """What a pool hands to the next one: a table as one row of another."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return pa.table({"table": pa.array([sink.getvalue().to_pybytes()], pa.large_binary())})


def out_of_row(row: pa.Table) -> pa.Table:
    """The table that one_row packed."""
    return pa.ipc.open_stream(row["table"][0].as_buffer()).read_all()


@contextmanager
def own_errors() -> Iterator[None]:
    """Raises the InputError or StepFailed of a worker as itself, out of the layers that Ray wraps around it."""
    try:
        yield
    except Exception as error:
        raise _own_error(error) or error from error


def _own_error(error: BaseException | None) -> BaseException | None:
    # Ray's own error for a task inherits from what the task raised, but its text is the worker's traceback.
    if error is None or (isinstance(error, InputError | StepFailed) and not isinstance(error, RayTaskError)):
        return error
    inner = [getattr(error, "cause", None), error.__cause__, *getattr(error, "worker_failures", {}).values()]
    found = next((found for one in inner if one is not error and (found := _own_error(one))), None)
    return found or (_own_error_in(str(error)) if isinstance(error, RayTaskError) else None)


def _own_error_in(traceback: str) -> BaseException | None:
    # Ray Data wraps what a function raises, and the wrapper loses it on its way here: only the text arrives.
    if told := OWN_ERROR.search(traceback):
        return (InputError if told["type"] == InputError.__name__ else StepFailed)(told["message"])
    return None
