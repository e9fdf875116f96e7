"""What a run will need, before it runs: memory of a device, steps and, where a probe measures it, time. Without Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch

from unlearn_ray.config import Resources, RunConfig
from unlearn_ray.engine import storage
from unlearn_ray.errors import InputError
from unlearn_ray.fitting import layout_table, scoring_settings, smaller_scorings, smaller_trainings, training_settings
from unlearn_ray.labelling import CPU_BATCH
from unlearn_ray.models import compute_dtype, load_model_config
from unlearn_ray.planning import (
    PROMPT_TOKENS,
    ScoringJob,
    Shape,
    TrainingJob,
    Zero,
    scoring_bytes,
    shape_of,
    training_device_bytes,
    training_host_bytes,
)
from unlearn_ray.probe import measure
from unlearn_ray.stages.finetune import layout_of
from unlearn_ray.stages.label import label_settings
from unlearn_ray.stages.workload import Workload, count_work, stage_seconds, stage_steps
from unlearn_ray.training.layout import Layout

TRAININGS = {"reinforced": "reinforce", "unlearned": "unlearn"}  # stage -> its section of the configuration
ORDER = ("reinforced", "labels", "retain", "unlearned", "evaluation")
DESCRIPTIONS = (".json", ".model", ".txt", ".jinja")  # what of a model is not weights


@dataclass(frozen=True)
class Device:
    """What a worker computes on. memory: in bytes; is_host: it is a share of the host's memory, not a GPU's."""

    name: str
    memory: float
    bf16: bool
    is_host: bool


@dataclass(frozen=True)
class StagePlan:
    """The memory of one costly stage, in bytes: of a device, and for training of the first worker's host.

    refusal: why it cannot run; fits_with: the overrides with which it could. layouts: see fitting.layout_table.
    """

    stage: str
    memory: float
    host: float | None = None
    refusal: str = ""
    fits_with: str = ""
    layouts: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a run will need. steps and seconds: by stage, over all forget sets; seconds and timed_on (where the probe
    measured): empty without a probe.
    """

    shape: Shape
    device: Device
    block_tokens: int
    workload: Workload
    stages: list[StagePlan]
    steps: dict[str, str]
    seconds: dict[str, float]
    timed_on: str

    @property
    def refusal(self) -> str:
        """What cannot run, in one line; empty where all can."""
        return "; ".join(stage.refusal for stage in self.stages if stage.refusal)


def make_plan(config: RunConfig, *, memory_gb: float | None = None, probe: bool | None = None) -> Plan:
    """The plan of a run on devices of so many GB, or on what this machine has.

    probe: whether to estimate times; None does so where the run computes on this machine. What does not fit is not
    timed. Raises InputError for a model, documents or DeepSpeed settings that cannot be read, and where the memory of
    the devices is not known.
    """
    resources, trust = config.resources, config.trust_remote_code
    zero = zero_of(layout_of(resources))
    device = find_device(resources, memory_gb, min(resources.parallel_sets or 1, len(config.forget_sets)))
    with _description(config.baseline) as path:
        model = load_model_config(path, trust_remote_code=trust)
        workload = count_work(config, path)
    shape = shape_of(model, trust_remote_code=trust)
    stages = [
        *(training_plan(stage, config, shape, device, zero) for stage in TRAININGS),
        *(scoring_plan(stage, work, shape, device) for stage, work in _scorings(config, workload, device).items()),
    ]
    speed = None
    if (memory_gb is None if probe is None else probe) and not any(stage.refusal for stage in stages):
        speed = measure(
            model,
            label_settings(config.label, config.unlearn_alpha),
            block_tokens=config.label.block_tokens,
            micro_batch=resources.micro_batch,
            batch=resources.evaluation_batch,
            threads=resources.cpus_per_worker,
            trust_remote_code=trust,
        )
    return Plan(
        shape=shape,
        device=device,
        block_tokens=config.label.block_tokens,
        workload=workload,
        stages=sorted(stages, key=lambda one: ORDER.index(one.stage)),
        steps=stage_steps(config, workload),
        seconds=stage_seconds(config, shape, workload, speed) if speed else {},
        timed_on=speed.device if speed else "",
    )


def zero_of(layout: Layout) -> Zero | None:
    """How the layout divides a training over the workers."""
    if layout.deepspeed is None:
        return None
    settings = layout.deepspeed["zero_optimization"]
    offloads = (settings.get(key, {}).get("device", "none") for key in ("offload_optimizer", "offload_param"))
    return Zero(layout.zero_stage, *(device != "none" for device in offloads))


def find_device(resources: Resources, memory_gb: float | None, parallel_sets: int) -> Device:
    """What a worker has: so many GB, a share of this machine's memory, or this machine's GPU."""
    on_host = resources.gpus_per_worker == 0
    has_gpu = torch.cuda.is_available() and not on_host
    bf16 = not (on_host or has_gpu) or compute_dtype("cuda" if has_gpu else "cpu") == torch.bfloat16
    if memory_gb is not None:
        return Device("a device as given", memory_gb * 1e9, bf16, on_host)
    if resources.address is not None:
        raise InputError("--memory GB: say how much memory a device of the cluster at resources.address has")
    if has_gpu:
        return Device(torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1], bf16, False)
    if resources.gpus_per_worker == 1:
        raise InputError("--memory GB: say how much memory a GPU has; there is none here to ask")
    workers = resources.workers * parallel_sets
    name = f"this machine's memory{f', shared by {workers} workers' if workers > 1 else ''}"
    return Device(name, psutil.virtual_memory().total / workers, compute_dtype("cpu") == torch.bfloat16, True)


def training_plan(stage: str, config: RunConfig, shape: Shape, device: Device, zero: Zero | None) -> StagePlan:
    """stage: reinforced or unlearned."""
    section, resources = TRAININGS[stage], config.resources
    settings = config.unlearn if section == "unlearn" else config.reinforce
    job = TrainingJob(
        block_tokens=config.label.block_tokens,
        workers=resources.workers,
        micro_batch=resources.micro_batch,
        checkpointing=resources.activation_checkpointing,
        zero=zero,
        rank=settings.adapter.rank if settings.adapter else None,
        averaged=section == "unlearn" and config.unlearn.average_share > 0,
        bf16=device.bf16,
    )

    def needs(job: TrainingJob) -> float:
        on_host = training_host_bytes(shape, job) if device.is_host else 0
        return training_device_bytes(shape, job) + on_host

    smaller = smaller_trainings(job, gpus=not device.is_host)
    ways = ((training_settings(job, other, section), needs(other)) for other in smaller)
    host, layouts = training_host_bytes(shape, job), layout_table(shape, job)
    return StagePlan(stage, needs(job), host, *_refusal(stage, needs(job), device, ways), layouts)


def scoring_plan(stage: str, work: ScoringJob, shape: Shape, device: Device) -> StagePlan:
    """stage: labels, retain or evaluation."""
    ways = (
        (scoring_settings(work, other), scoring_bytes(shape, other))
        for other in smaller_scorings(work, gpus=not device.is_host)
    )
    needed = scoring_bytes(shape, work)
    return StagePlan(stage, needed, None, *_refusal(stage, needed, device, ways))


def _scorings(config: RunConfig, workload: Workload, device: Device) -> dict[str, ScoringJob]:
    resources, adapter = config.resources, config.reinforce.adapter
    of_one = ScoringJob(
        models=1,
        block_tokens=config.label.block_tokens,
        batch=resources.evaluation_batch,
        gpus=1 if device.is_host else resources.gpus_per_scorer,
        rank=None,
        bf16=device.bf16,
    )
    found = resources.batch_blocks or (CPU_BATCH if device.is_host else 1)
    labels = replace(of_one, models=2, batch=found, rank=adapter.rank if adapter else None)
    evaluation = replace(of_one, cached=PROMPT_TOKENS + config.evaluate.completion_tokens)
    retain = {"retain": of_one} if workload.retain_blocks else {}
    return {"labels": labels, "evaluation": evaluation} | retain


def _refusal(stage: str, needed: float, device: Device, ways: Iterator[tuple[str, float]]) -> tuple[str, str]:
    """Nothing where the stage fits; else the problem, and the first of the ways (overrides, bytes needed) that fits."""
    if needed <= device.memory:
        return "", ""
    problem = f"{stage} needs {needed / 1e9:.1f} GB a device, which has {device.memory / 1e9:.1f} GB"
    for settings, then_needed in ways:
        if then_needed <= device.memory:
            return f"{problem} ({then_needed / 1e9:.1f} GB with {settings})", settings
    return f"{problem}, and no setting makes it fit", ""


@contextmanager
def _description(model: str) -> Iterator[str]:
    """Where the model's configuration and tokenizer can be read: of one in an object store a copy of these alone."""
    if "://" not in model:
        yield model
        return
    with TemporaryDirectory() as folder:
        for file in storage.list_files(model):
            if file.endswith(DESCRIPTIONS):
                (Path(folder) / Path(file).name).write_bytes(storage.read_bytes(file))
        yield folder
