"""The train loop: what a step computes, and nothing that depends on how it is spread."""

import math
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from torch.optim.swa_utils import AveragedModel
from transformers import PreTrainedModel

from unlearn_ray.errors import StepFailed
from unlearn_ray.method.losses import linear_divergence
from unlearn_ray.models import decoder, output_layer
from unlearn_ray.training.examples import Example, Examples, endless_batches, training_batches
from unlearn_ray.training.layout import DATA_PARALLEL, Layout, check_layout
from unlearn_ray.training.saves import Saves, Training

BETAS = (0.9, 0.98)  # a short memory of the second moment: these runs have tens of steps, not thousands
Work = list[tuple[Example, float]]  # blocks with the weight of each of their positions

SHOWN = 8  # block ids in an error


class Diverged(StepFailed):
    """A loss or a gradient that is not finite, or a model that has become worse than a guess."""


@dataclass(frozen=True)
class TrainSettings:
    """What one fine-tuning is: learning_rate is the peak, reached after warmup_share of the steps; batches count in
    blocks, over all processes; average_share: the share of the steps, the last ones, whose weights are averaged into
    the result.
    """

    epochs: float
    learning_rate: float
    global_batch: int
    seed: int
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_share: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    retain_weight: float = 0.0
    retain_batch: int = 0
    average_share: float = 0.0
    checkpoint_every: int = 0


@dataclass(frozen=True)
class StepLog:
    """One step as it went: tokens_per_s over all processes, memory_gb the peak of this one, seconds_left an
    estimate.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    memory_gb: float
    seconds_left: float


class LossModel(torch.nn.Module):
    """The model with its loss inside forward, so that the wrappers of data parallelism see one module with one
    output.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, leading: Sequence[int]):
        super().__init__()
        self.model, self.leading = model, torch.tensor(list(leading), dtype=torch.long)

    def forward(self, examples: Sequence[Example], weights: Sequence[float]) -> torch.Tensor:
        """Sum over all trained positions of weight x divergence; weights: one a block."""
        device = self.model.device
        ids = [torch.cat([self.leading, torch.from_numpy(example.input_ids_T)]) for example in examples]
        mask_BT = pad_sequence([torch.ones_like(i) for i in ids], batch_first=True).to(device)
        with _without_copies(device.type):
            output = decoder(self.model)(
                input_ids=pad_sequence(ids, batch_first=True).to(device), attention_mask=mask_BT, use_cache=False
            )
        shift = len(self.leading) - 1
        rows = np.concatenate([np.full(len(example.positions_P), row) for row, example in enumerate(examples)])
        columns = np.concatenate([example.positions_P for example in examples]) + shift
        width = max(example.ids_PS.shape[1] for example in examples)
        widened = lambda parts: np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
        weights_P = np.concatenate(
            [np.full(len(e.positions_P), w, np.float32) for e, w in zip(examples, weights, strict=True)]
        )
        return linear_divergence(
            output.last_hidden_state[torch.from_numpy(rows), torch.from_numpy(columns)],
            output_layer(self.model),
            torch.from_numpy(widened([example.ids_PS for example in examples])).to(device),
            torch.from_numpy(widened([example.probs_PS for example in examples])).to(device),
            torch.from_numpy(weights_P).to(device),
        )


def _without_copies(device: str) -> torch.autocast:
    """Autocast as it is, but without its memory of converted weights: a pass uses each weight once, and it would hold
    a copy of all of them to the end, also where activations are not kept and weights are spread by ZeRO-3.
    """
    return torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )


def learning_rate_at(step: int, steps: int, settings: TrainSettings) -> float:
    """Linear warm-up, then the schedule's fall to 0 after the last step; step counts from 0."""
    warmup = settings.warmup_share * steps
    rise = (step + 1) / warmup if warmup >= 1 else 1.0
    left = min(1.0, (steps - step) / (steps - warmup))
    fall = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[settings.schedule]
    return settings.learning_rate * min(1.0, rise, fall)


def train(
    model: PreTrainedModel | PeftModel,
    leading: Sequence[int],
    examples: Examples,
    settings: TrainSettings,
    accelerator: Accelerator,
    *,
    layout: Layout = DATA_PARALLEL,
    retain: Examples | None = None,
    saves: Saves | None = None,
    on_step: Callable[[StepLog], None] = lambda log: None,
    on_checkpoint: Callable[[int | None, dict[str, torch.Tensor]], None] = lambda step, weights: None,
) -> list[float]:
    """Fine-tunes `model` in place; returns the loss of every step.

    The loss of a step is the mean divergence over the trained positions of its whole global batch, plus retain_weight
    times the same mean over the step's retain blocks. Both means are taken before anything is split, so the number of
    processes, accumulation, padding and ZeRO do not change the result. Goes on from the last of the `saves`, where one
    is there. on_checkpoint(step, weights) is called after each settings.checkpoint_every steps, and with None after the
    last: on the main process with copies of the trained weights, whole and float32, on the others with none. Raises
    Diverged with the step and its blocks, before anything of that step is written.
    """
    training = _prepare(model, leading, settings, accelerator, layout)
    batches = training_batches(len(examples), settings.global_batch, settings.epochs, settings.seed)
    held = endless_batches(len(retain), settings.retain_batch, settings.seed) if retain else iter(())
    retained = list(islice(held, len(batches)))
    losses = saves.restore(training) if saves else []
    first, clock = len(losses), time.monotonic()
    for step in range(first, len(batches)):
        started, done = time.monotonic(), step + 1
        torch.manual_seed(_seed(settings.seed, step, accelerator.process_index))  # dropout, also after a resume
        rate = learning_rate_at(step, len(batches), settings)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        work = _weighted([examples[row] for row in batches[step]], 1.0)
        if retain and settings.retain_weight > 0:
            work += _weighted([retain[row] for row in retained[step]], settings.retain_weight)
        try:
            loss, grad_norm = _step(training, work, settings.max_grad_norm, first_loss=losses[0] if losses else None)
        except _Blocks as error:
            raise Diverged(f"{error} (step {done} of {len(batches)}): lower the learning rate") from None
        losses.append(loss)
        if training.averaged and done > len(batches) * (1 - settings.average_share):
            training.averaged.update_parameters(model)
        now = time.monotonic()
        tokens_per_s = sum(len(example.input_ids_T) for example, _ in work) / (now - started)
        left = (now - clock) / (done - first) * (len(batches) - done)
        on_step(StepLog(done, len(batches), loss, rate, grad_norm, tokens_per_s, _peak_memory(), left))
        if done < len(batches):
            if settings.checkpoint_every and done % settings.checkpoint_every == 0:
                on_checkpoint(done, training.result())
            if saves and done % saves.every == 0:
                saves.save(training, losses)
    if training.averaged:
        model.load_state_dict(training.averaged.module.state_dict())
    on_checkpoint(None, training.result())
    return losses


def _prepare(
    model: PreTrainedModel | PeftModel,
    leading: Sequence[int],
    settings: TrainSettings,
    accelerator: Accelerator,
    layout: Layout,
) -> Training:
    if layout.activation_checkpointing:
        if isinstance(model, PeftModel):
            model.enable_input_require_grads()  # a segment whose input needs no gradient would be skipped
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    wrapped = LossModel(model, leading)
    wrapped.train()
    adam: Any = torch.optim.AdamW
    if layout.optimizer_on_host:
        from unlearn_ray.training.zero import HostAdamW as adam
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = adam(trained, lr=settings.learning_rate, betas=BETAS, weight_decay=settings.weight_decay)
    wrapped, optimizer = accelerator.prepare(wrapped, optimizer)
    check_layout(wrapped, layout, accelerator)
    averaged = AveragedModel(model) if settings.average_share > 0 else None
    return Training(model, wrapped, optimizer, accelerator, layout, averaged)


def _weighted(examples: list[Example], weight: float) -> Work:
    positions = sum(len(example.positions_P) for example in examples)
    return [(example, weight / max(positions, 1)) for example in examples]


class _Blocks(Exception):
    """What went wrong, with the blocks of it."""


def _step(training: Training, work: Work, max_grad_norm: float, first_loss: float | None) -> tuple[float, float]:
    """Loss and length of the gradient of one optimiser step."""
    accelerator, world = training.accelerator, training.accelerator.num_processes
    # As many blocks for every process, some of them of no weight: ZeRO-3 exchanges weights in every forward pass.
    padded = work + [(work[0][0], 0.0)] * (-len(work) % world)
    mine: Work = padded[accelerator.process_index :: world]
    size = training.layout.micro_batch
    micro_batches: list[Work] = [mine[start : start + size] for start in range(0, len(mine), size)]
    losses = []
    for micro in micro_batches:
        last = accelerator.sync_gradients = len(losses) == len(micro_batches) - 1
        with nullcontext() if last or training.layout.deepspeed else accelerator.no_sync(training.wrapped):
            loss = training.wrapped([example for example, _ in micro], [weight for _, weight in micro])
            losses.append(loss.detach())
            if last:
                total = float(accelerator.reduce(torch.stack(losses).sum(), "sum"))  # type: ignore[arg-type]
                _check(total, first_loss, losses, micro_batches, training.model)
            # Data parallelism averages gradients over processes; the loss is already a share of the whole batch's mean.
            accelerator.backward(loss * world)
    parameters = [p for p in training.wrapped.parameters() if p.requires_grad]
    grad_norm = float(accelerator.clip_grad_norm_(parameters, max_grad_norm or math.inf))  # type: ignore[arg-type]
    if not math.isfinite(grad_norm):
        raise _Blocks(f"the gradient became {grad_norm} in blocks {_named(micro_batches)}")
    training.optimizer.step()
    training.optimizer.zero_grad()
    return total, grad_norm


def _check(total: float, first: float | None, losses: list[torch.Tensor], micro_batches: list[Work], model) -> None:
    guess = math.log(model.config.get_text_config().vocab_size)
    if not math.isfinite(total):
        bad = [micro for loss, micro in zip(losses, micro_batches, strict=True) if not loss.isfinite()]
        raise _Blocks(f"the loss became {total} in blocks {_named(bad)}")
    if first is not None and total > max(guess, 2 * first):
        raise _Blocks(f"the loss rose from {first:.3g} to {total:.3g}, above that of a guess, in blocks "
                      f"{_named(micro_batches)}")  # fmt: skip


def _named(micro_batches: list[Work]) -> str:
    """The ids of the blocks of all processes."""
    mine = [example.block_id for micro in micro_batches for example, weight in micro if weight > 0]
    ids = sorted(set(gather_object(mine)))
    return ", ".join(map(str, ids[:SHOWN])) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _peak_memory() -> float:
    """Of this process, in GB: of its GPU, or resident where it has none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
