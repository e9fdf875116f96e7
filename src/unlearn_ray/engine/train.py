"""Ray Train around a train loop that knows nothing of Ray."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ray.train import TrainingFailedError

from unlearn_ray.engine import storage
from unlearn_ray.engine.idle import Shape
from unlearn_ray.engine.own_errors import own_errors
from unlearn_ray.engine.placement import Place
from unlearn_ray.engine.train_group import train_group

logger = logging.getLogger(__name__)


def fit(
    loop: Callable[[dict], Any],
    config: dict,
    *,
    name: str,
    record: str,
    workers: int,
    cpus: float,
    gpus: float,
    places: Sequence[Place],
    restarts: int,
) -> tuple[Any, int]:
    """Runs `loop(config)` on a group of Ray Train workers with a process group between them; returns rank 0's return
    value, and how often the training was started again.

    One whose group lost a worker or a node starts again in another, at most `restarts` times: the loop finds by itself
    where it was. What the loop raises is raised here at once, since it would come again. record: a folder for Ray's own
    notes, emptied first: Ray resumes from notes that it finds, and would take those of another attempt for its own.
    The group is one placement group, on nodes of one of the places.
    """
    for attempt in range(restarts + 1):
        storage.remove(record)
        try:
            with own_errors(), train_group(Shape(workers, cpus, gpus, tuple(places)), name, record) as group:
                result = group.run(loop, config)
            storage.remove(record)
            return result, attempt
        except TrainingFailedError as error:
            if attempt == restarts or not _lost_a_worker(error):
                raise
            logger.warning("%s lost a worker and starts again from its last save", name)
    raise AssertionError("the last attempt returns or raises")


def _lost_a_worker(error: TrainingFailedError) -> bool:
    """Whether a process died, which is told by errors of Ray's own; those beside it fail in their next exchange."""
    failures = getattr(error, "worker_failures", {0: error}).values()
    return any(type(failure).__module__.startswith("ray.") for failure in failures)
