"""How a training can be laid out over devices, and which settings make one fit that does not. Free of Ray."""

import shlex
from collections.abc import Iterator
from dataclasses import replace

from unlearn_ray.planning import ScoringJob, Shape, TrainingJob, Zero, training_device_bytes

LAYOUTS = {
    "data parallel": None,
    "ZeRO-1": Zero(1),
    "ZeRO-2": Zero(2),
    "ZeRO-3": Zero(3),
    "ZeRO-3, offloaded": Zero(3, offload_optimizer=True, offload_weights=True),
}
SETTINGS = {
    LAYOUTS["ZeRO-2"]: "configs/deepspeed/zero2.json",
    LAYOUTS["ZeRO-3"]: "configs/deepspeed/zero3.json",
    LAYOUTS["ZeRO-3, offloaded"]: "configs/deepspeed/zero3-offload.json",
}
RANK = 16
MOST_WORKERS = 64
MOST_GPUS = 8  # of one node


def layout_table(shape: Shape, job: TrainingJob) -> dict[str, tuple[float, float]]:
    """Layout -> bytes a device needs, without and with activation checkpointing, all else as in `job`."""

    def needs(zero: Zero | None, checkpointing: bool) -> float:
        averaged = job.averaged and zero is None
        return training_device_bytes(shape, replace(job, zero=zero, checkpointing=checkpointing, averaged=averaged))

    return {name: (needs(zero, False), needs(zero, True)) for name, zero in LAYOUTS.items()}


def smaller_trainings(job: TrainingJob, *, gpus: bool) -> Iterator[TrainingJob]:
    """The same training with less memory, the least intrusive change first; on GPUs also spread over more of them."""
    yield replace(job, micro_batch=1)
    yield replace(job, checkpointing=True)
    yield _small(job)
    if gpus:
        yield from _spread(job)
    if job.rank is None:
        adapted = replace(job, rank=RANK)
        yield adapted
        yield _small(adapted)
        if gpus:
            yield from _spread(adapted)


def _spread(job: TrainingJob) -> Iterator[TrainingJob]:
    larger = [2**power for power in range(1, MOST_WORKERS.bit_length()) if 2**power > job.workers]
    for workers in (job.workers, *larger):
        for zero in SETTINGS:
            divided = replace(job, workers=workers, zero=zero, averaged=False)
            yield divided
            yield _small(divided)


def smaller_scorings(work: ScoringJob, *, gpus: bool) -> Iterator[ScoringJob]:
    """The same work with less memory: smaller batches, more GPUs, and an adapter for the second model."""
    yield replace(work, batch=1)
    if gpus:
        larger = [2**power for power in range(1, MOST_GPUS.bit_length()) if 2**power > work.gpus]
        for number in larger:
            yield replace(work, gpus=number)
            yield replace(work, gpus=number, batch=1)
    if work.models == 2 and work.rank is None:
        yield replace(work, rank=RANK)
        yield replace(work, rank=RANK, batch=1)


def training_settings(job: TrainingJob, other: TrainingJob, section: str) -> str:
    """The overrides that make `other` of `job`, as they are typed; section: reinforce or unlearn."""
    return _overrides(
        {
            "resources.workers": (job.workers, other.workers),
            "resources.micro_batch": (job.micro_batch, other.micro_batch),
            "resources.activation_checkpointing": (job.checkpointing, other.checkpointing),
            "resources.deepspeed": (job.zero, SETTINGS[other.zero] if other.zero != job.zero else job.zero),
            "unlearn.average_share": (job.averaged, other.averaged),
            f"{section}.adapter": (job.rank, other.rank),
        }
    )


def scoring_settings(work: ScoringJob, other: ScoringJob) -> str:
    """The overrides that make `other` of `work`, as they are typed."""
    return _overrides(
        {
            "resources.batch_blocks": (work.batch, other.batch),
            "resources.gpus_per_scorer": (work.gpus, other.gpus),
            "reinforce.adapter": (work.rank, other.rank),
        }
    )


def _small(job: TrainingJob) -> TrainingJob:
    return replace(job, micro_batch=1, checkpointing=True)


def _overrides(values: dict[str, tuple]) -> str:
    changed = {key: after for key, (before, after) in values.items() if before != after}
    return shlex.join(f"{key}={_typed(key, value)}" for key, value in changed.items())


def _typed(key: str, value: object) -> str:
    if key.endswith(".adapter"):
        return f"{{rank: {value}}}"
    if key == "unlearn.average_share":
        return "0"
    return str(value).lower() if isinstance(value, bool) else str(value)
