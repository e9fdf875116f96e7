"""A group of Ray Train workers that serves one training after another: starting one takes longer than a small training.

A training has a group for itself. Afterwards the group waits, with its processes, imports and process group, for the
next one (engine/idle.py).
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer

from unlearn_ray.engine.idle import Kind, Shape, group
from unlearn_ray.engine.memory import free_memory
from unlearn_ray.engine.placement import here, one_place
from unlearn_ray.engine.train_jobs import NOTHING_MORE, Jobs


class TrainGroup:
    """One run of Ray Train, whose workers take jobs until they are sent home. record: a folder for Ray's notes, which
    it needs until the group has started.
    """

    def __init__(self, shape: Shape, name: str, record: str):
        self.ended: Future[None] = Future()
        self.jobs: Any = ray.remote(Jobs).options(num_cpus=0, label_selector=here()).remote(shape.workers)
        resources = {"CPU": shape.cpus} | ({"GPU": shape.gpus} if shape.gpus else {})
        trainer = TorchTrainer(
            _serve,
            train_loop_config={"jobs": self.jobs},
            scaling_config=ScalingConfig(
                num_workers=shape.workers,
                use_gpu=shape.gpus > 0,
                resources_per_worker=resources,
                label_selector=one_place(shape.places, shape.workers, resources) or None,
            ),
            run_config=RunConfig(name=name, storage_path=record),
        )
        threading.Thread(target=self._live, args=(trainer,), daemon=True).start()

    def run(self, loop: Callable[[dict], Any], config: dict) -> Any:
        """`loop(config)` on every worker; returns what it does on the first. Raises what ends the group."""
        result = self.jobs.run.remote(cloudpickle.dumps((loop, config)))  # type: ignore[reportPrivateImportUsage]
        while not ray.wait([result], timeout=1)[0]:
            if self.ended.done():
                self.ended.result()
        try:
            return ray.get(result)
        except RayActorError:
            self.ended.result()  # the workers too ask for their jobs in vain, and that ends the group
            raise

    def end(self) -> None:
        """Sends the workers home; does not wait for it."""
        self.jobs.end.remote()

    def _live(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
            self.ended.set_result(None)
        except BaseException as error:  # whatever it is, the training in this group has to hear of it
            self.ended.set_exception(error)


@contextmanager
def train_group(shape: Shape, name: str, record: str) -> Iterator[TrainGroup]:
    """A group for one training: one that is idle, or else a new one."""
    with group(Kind("training", (shape,)), partial(TrainGroup, shape, name, record)) as mine:
        yield mine


def _serve(config: dict) -> None:
    """The train loop of a worker's whole life."""
    jobs, worker, number = config["jobs"], get_context().get_world_rank(), 0
    while True:
        number, job = ray.get(jobs.take.remote(number))
        if job == NOTHING_MORE:
            return
        result = _done(job)
        free_memory()  # others need it while this worker waits
        ray.get(jobs.finish.remote(worker, result if worker == 0 else None))


def _done(job: bytes) -> Any:
    loop, config = cloudpickle.loads(job)
    return loop(config)
