"""How a fine-tuning is spread over processes: data parallel, or DeepSpeed ZeRO. No part of what it computes."""

import json
from dataclasses import dataclass

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs

from unlearn_ray.errors import InputError
from unlearn_ray.models import compute_dtype

# What a fine-tuning sets by itself, from its own settings.
OWN_KEYS = (
    "optimizer",
    "scheduler",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "fp16",
    "bf16",
    "torch_autocast",
)


@dataclass(frozen=True)
class Layout:
    """deepspeed: its settings (see read_deepspeed), or None for data parallel training, every process with the whole
    model. micro_batch: blocks of one forward and backward pass.
    """

    micro_batch: int = 4
    activation_checkpointing: bool = False
    deepspeed: dict | None = None

    @property
    def zero_stage(self) -> int:
        """What is spread over the processes: nothing (0), the optimiser (1), gradients too (2), weights too (3)."""
        return self.deepspeed["zero_optimization"]["stage"] if self.deepspeed else 0

    @property
    def optimizer_on_host(self) -> bool:
        """Whether the optimiser works in host memory, by DeepSpeed's own code for CPUs."""
        settings = self.deepspeed or {}
        device = settings.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none")
        return device != "none" and settings.get("zero_force_ds_cpu_optimizer", True)


DATA_PARALLEL = Layout()


def read_deepspeed(text: str, origin: str) -> dict:
    """DeepSpeed's settings from JSON. Raises InputError that names `origin` for what is not JSON, has no ZeRO stage, or
    sets what the fine-tuning sets.
    """
    try:
        settings = json.loads(text)
        stage = settings["zero_optimization"]["stage"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{origin}: expected JSON with {{"zero_optimization": {{"stage": 1}}}} or more') from error
    if stage not in (1, 2, 3):
        raise InputError(f"{origin}: zero_optimization.stage is 1, 2 or 3 (got {stage!r})")
    if own := [key for key in OWN_KEYS if key in settings]:
        raise InputError(f"{origin}: {', '.join(own)}: comes from the run's configuration, leave it out here")
    return settings


def make_accelerator(layout: Layout, *, max_grad_norm: float, processes: int) -> Accelerator:
    """The accelerator of one of `processes` processes of a training; make it before the model, which ZeRO-3 spreads
    while it is loaded.

    Arithmetic in bfloat16 where the hardware is fast at it, weights and optimiser in float32 always. Raises
    RuntimeError where accelerate falls back on anything else than the layout asks for.
    """
    AcceleratorState._reset_state()  # of an earlier training in this process; the process group stays
    on_gpu = torch.cuda.is_available()
    bf16 = compute_dtype("cuda" if on_gpu else "cpu") == torch.bfloat16
    if layout.deepspeed:
        accelerator = _with_deepspeed(layout, layout.deepspeed, max_grad_norm, on_gpu, bf16)
    else:
        views = DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # not a second copy of the gradients
        accelerator = Accelerator(cpu=not on_gpu, mixed_precision="bf16" if bf16 else "no", kwargs_handlers=[views])
    if accelerator.num_processes != processes:
        raise RuntimeError(
            f"accelerate sees {accelerator.num_processes} of {processes} processes: they do not train together"
        )
    if bool(layout.deepspeed) != (accelerator.distributed_type == DistributedType.DEEPSPEED):
        raise RuntimeError(f"accelerate made {accelerator.distributed_type} of ZeRO stage {layout.zero_stage}")
    return accelerator


def _with_deepspeed(layout: Layout, settings: dict, max_grad_norm: float, on_gpu: bool, bf16: bool) -> Accelerator:
    settings = settings | {
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": 1,  # the loop itself says which backward pass ends a step
        "gradient_clipping": max_grad_norm,
        # Not DeepSpeed's own bf16, which rounds the weights that it is given: autocast, as without DeepSpeed.
        "torch_autocast": {"enabled": bf16, "dtype": "bfloat16", "lower_precision_safe_modules": []},
        "zero_force_ds_cpu_optimizer": False,  # accelerate's way to it gives it settings that it cannot read
    }
    plugin = DeepSpeedPlugin(hf_ds_config=settings, zero3_init_flag=layout.zero_stage == 3)
    if on_gpu:
        return Accelerator(deepspeed_plugin=plugin)
    from unlearn_ray.training.zero import compile_nothing

    compile_nothing()
    # With cpu=True accelerate drops DeepSpeed in silence, without a named backend the other processes.
    return Accelerator(deepspeed_plugin=plugin, kwargs_handlers=[InitProcessGroupKwargs(backend="gloo")])


def check_layout(wrapped: torch.nn.Module, layout: Layout, accelerator: Accelerator) -> None:
    """Raises RuntimeError where a prepared model is not spread in the way that the layout asks for."""
    stage = getattr(wrapped, "zero_optimization_stage", lambda: 0)()
    alone = stage == 0 and not isinstance(wrapped, torch.nn.parallel.DistributedDataParallel)
    if stage != layout.zero_stage or (alone and accelerator.num_processes > 1):
        raise RuntimeError(f"asked for ZeRO stage {layout.zero_stage}, got {type(wrapped).__name__} of stage {stage}")
