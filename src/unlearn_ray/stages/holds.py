"""What the steps of each kind hold while they run: the fixed pools of actors that their stage starts.

Each is asked for when a step is about to be admitted, since `gpus_per_worker: auto` is decided by the running cluster.
"""

from collections.abc import Callable
from functools import partial

import ray

from unlearn_ray.config import Resources
from unlearn_ray.engine.session import gpus_per_scorer, gpus_per_worker
from unlearn_ray.engine.steps import Holds

PREPARER_CPUS = 0.5  # of each actor that translates ahead of a labelling one: it waits for the models most of the time


def cutting(resources: Resources, documents: int) -> Callable[[], Holds]:
    """Actors that tokenise, one a document where there are fewer."""
    return partial(Holds, min(resources.workers, documents))


def training(resources: Resources) -> Callable[[], Holds]:
    """A group of Ray Train workers, which hold CPUs also beside a GPU."""

    def holds() -> Holds:
        workers = resources.workers
        return Holds(workers * resources.cpus_per_worker, workers * gpus_per_worker(resources))

    return holds


def scoring(resources: Resources, beside: float = 0.0) -> Callable[[], Holds]:
    """Actors with whole models, on GPUs alone or else on CPUs. beside: CPUs of another pool that each of them has."""

    def holds() -> Holds:
        gpus = gpus_per_scorer(resources)
        cpus = (0 if gpus else resources.cpus_per_worker) + beside
        return Holds(resources.workers * cpus, resources.workers * gpus)

    return holds


def capacity(share: float = 1.0) -> Holds:
    """What the cluster has now, or the share of it that is this run's; nodes that come later count then."""
    has = ray.cluster_resources()
    return Holds(has.get("CPU", 0) * share, has.get("GPU", 0) * share)


def most_at_once(resources: Resources) -> int | None:
    """resources.parallel_sets, or else 1 where workers compute on CPUs, and None, for any number, where they do not."""
    if resources.parallel_sets is None:
        return None if gpus_per_worker(resources) else 1
    return resources.parallel_sets
