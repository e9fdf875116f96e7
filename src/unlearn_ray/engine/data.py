"""Ray Data over shards: a shard is the unit of work, of a file and of restart, and passes through pools of actors
whole.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from unlearn_ray.config import Resources
from unlearn_ray.engine.idle import Kind, Shape, group
from unlearn_ray.engine.placement import Place, places
from unlearn_ray.engine.pools import Pools
from unlearn_ray.engine.session import gpus_per_scorer


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
        cpus = 0 if self.gpus else self.cpus
        return Shape(min(self.workers, shards), cpus, self.gpus, tuple(self.places))


def scoring_pool(callable_class: Callable, arguments: dict[str, Any], resources: Resources) -> Pool:
    """A pool of `resources.workers` actors that score text with whole models."""
    gpus = gpus_per_scorer(resources)
    return Pool(
        callable_class,
        arguments,
        workers=resources.workers,
        cpus=resources.cpus_per_worker,
        gpus=gpus,
        places=places(resources, "score", gpus),
    )


def map_shards(shards: Sequence[str], *pools: Pool) -> Iterator[dict]:
    """Sends every shard (a description as text, column "shard") through the pools; yields the rows of the last one, of
    one shard after another as they are ready.

    An actor gets one shard at a time, whole: so what it computes together depends on the shard alone, not on the number
    of actors or the order of completion. The processes may have served other steps before (engine/pools.py). Raises
    what an actor raises.
    """
    if not shards:
        return
    shapes = tuple(pool.shape(len(shards)) for pool in pools)
    calls = [(pool.callable_class, pool.arguments) for pool in pools]
    with group(Kind("shards", shapes), partial(Pools, shapes)) as mine:
        for table in mine.run(calls, shards):
            yield from table.to_pylist()
