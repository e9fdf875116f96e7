"""Ray Train around a train loop that knows nothing of Ray."""

from collections.abc import Callable
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from unlearn_ray.engine.data import own_errors


def fit(
    loop: Callable[[dict], Any], config: dict, *, name: str, storage: str, workers: int, cpus: float, gpus: float
) -> Any:
    """Runs `loop(config)` on a group of Ray Train workers with a process group between them; returns rank 0's return
    value.

    storage: a folder of this attempt alone, for Ray's own record. Ray resumes from a record that it finds there, and
    would take one that an older recipe left for its own.
    """
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    trainer = TorchTrainer(
        loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources),
        run_config=RunConfig(name=name, storage_path=storage),
    )
    with own_errors():
        return trainer.fit().return_value
