"""The train loop of the reinforced and of the unlearned model: both are fine-tunings towards targets at token
positions.

Free of Ray: takes a model, examples and an accelerate Accelerator.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from torch.optim.swa_utils import AveragedModel
from transformers import PreTrainedModel

from unlearn_ray.errors import StepFailed
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.method.losses import chunked_divergence
from unlearn_ray.models import decoder, output_embedding

BETAS = (0.9, 0.98)  # a short memory of the second moment: these runs have tens of steps, not thousands


@dataclass(frozen=True)
class Example:
    """One block with its targets: position p of `positions_P` is the index of the token to be predicted, its target the
    tokens ids_PS with probabilities probs_PS (hard labels: S = 1)."""

    input_ids_T: np.ndarray
    positions_P: np.ndarray
    ids_PS: np.ndarray
    probs_PS: np.ndarray


@dataclass(frozen=True)
class TrainSettings:
    """What one fine-tuning is: learning_rate is the peak, reached after warmup_share of the steps, falling linearly
    to 0; batches count in blocks, over all workers; average_share: the share of the steps, the last ones, whose weights
    are averaged into the result.
    """

    epochs: int
    learning_rate: float
    global_batch: int
    warmup_share: float
    weight_decay: float
    seed: int
    retain_weight: float = 0.0
    retain_batch: int = 0
    average_share: float = 0.0
    checkpoint_every: int = 0


def text_example(block: dict) -> Example:
    """Every next token of the block's own text as a hard label: fine-tuning of the reinforced model."""
    ids_T = np.asarray(block["input_ids"], dtype=np.int64)
    positions_P = np.arange(1, len(ids_T))
    return Example(ids_T, positions_P, ids_T[1:, None], np.ones((len(positions_P), 1), np.float32))


def hard_example(block: dict, column: str) -> Example:
    """The generic labels of one alpha, column labels_<alpha>."""
    labels_T = np.asarray(block[column], dtype=np.int64)
    positions_P = np.flatnonzero(labels_T != IGNORED)
    ids_PS = labels_T[positions_P, None]
    return Example(np.asarray(block["input_ids"], np.int64), positions_P, ids_PS, np.ones(ids_PS.shape, np.float32))


def soft_example(block: dict) -> Example:
    """The soft labels: columns topk_ids and topk_logprobs, with an empty list where a position is not trained."""
    positions_P = np.flatnonzero([len(ids) > 0 for ids in block["topk_ids"]])
    ids_PS = np.array([block["topk_ids"][p] for p in positions_P], dtype=np.int64)
    probs_PS = np.exp(np.array([block["topk_logprobs"][p] for p in positions_P], dtype=np.float32))
    width = ids_PS.shape[1] if len(positions_P) else 1
    return Example(
        np.asarray(block["input_ids"], np.int64), positions_P, ids_PS.reshape(-1, width), probs_PS.reshape(-1, width)
    )


class Examples:
    """The rows of a block table as examples, decoded one at a time: soft labels are large."""

    def __init__(self, table: pa.Table, decode: Callable[[dict], Example]):
        self.table, self.decode = table, decode

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: int) -> Example:
        return self.decode(self.table.slice(row, 1).to_pylist()[0])


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
        output = decoder(self.model)(input_ids=pad_sequence(ids, batch_first=True).to(device), attention_mask=mask_BT)
        shift = len(self.leading) - 1
        rows = np.concatenate([np.full(len(example.positions_P), row) for row, example in enumerate(examples)])
        columns = np.concatenate([example.positions_P for example in examples]) + shift
        width = max(example.ids_PS.shape[1] for example in examples)
        widened = lambda parts: np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
        weights_P = np.concatenate(
            [np.full(len(e.positions_P), w, np.float32) for e, w in zip(examples, weights, strict=True)]
        )
        return chunked_divergence(
            output.last_hidden_state[torch.from_numpy(rows), torch.from_numpy(columns)],
            output_embedding(self.model),
            torch.from_numpy(widened([example.ids_PS for example in examples])).to(device),
            torch.from_numpy(widened([example.probs_PS for example in examples])).to(device),
            torch.from_numpy(weights_P).to(device),
        )


def epoch_batches(rows: int, global_batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The blocks of each step of an epoch. Depends on seed and epoch alone, never on the number of workers; the last
    batch may be smaller, none is dropped."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + global_batch] for start in range(0, rows, global_batch)]


def endless_batches(rows: int, size: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of `size` rows, through one shuffled order after another."""
    order, epoch = np.zeros(0, np.int64), 0
    while True:
        while len(order) < size:
            order = np.concatenate([order, np.random.default_rng([seed, epoch, 1]).permutation(rows)])
            epoch += 1
        yield order[:size]
        order = order[size:]


def learning_rate_at(step: int, steps: int, settings: TrainSettings) -> float:
    """Linear warm-up, then linear fall to 0 after the last step; step counts from 0."""
    warmup = settings.warmup_share * steps
    rise = (step + 1) / warmup if warmup >= 1 else 1.0
    fall = (steps - step) / (steps - warmup)
    return settings.learning_rate * min(1.0, rise, fall)


def train(
    model: PreTrainedModel | PeftModel,
    leading: Sequence[int],
    examples: Examples,
    settings: TrainSettings,
    accelerator: Accelerator,
    *,
    retain: Examples | None = None,
    micro_batch: int = 4,
    on_step: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    on_checkpoint: Callable[[int], None] = lambda step: None,
) -> list[float]:
    """Fine-tunes `model` in place; returns the loss of every step.

    The loss of a step is the mean divergence over the trained positions of its whole global batch, plus retain_weight
    times the same mean over the step's retain blocks. Both means are taken before anything is split, so the number of
    workers, accumulation and padding do not change the result. on_checkpoint(step) is called on every rank after each
    settings.checkpoint_every steps, but not after the last. Raises StepFailed on a loss that is not finite.
    """
    wrapped = LossModel(model, leading)
    wrapped.train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        betas=BETAS,
        weight_decay=settings.weight_decay,
    )
    wrapped, optimizer = accelerator.prepare(wrapped, optimizer)
    batches = [
        b
        for epoch in range(settings.epochs)
        for b in epoch_batches(len(examples), settings.global_batch, settings.seed, epoch)
    ]
    retained = endless_batches(len(retain), settings.retain_batch, settings.seed) if retain else None
    averaged = AveragedModel(model) if settings.average_share > 0 else None
    losses = []
    for step, batch in enumerate(batches):
        work = _weighted([examples[row] for row in batch], 1.0)
        if retain and retained and settings.retain_weight > 0:
            work += _weighted([retain[row] for row in next(retained)], settings.retain_weight)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, len(batches), settings)
        losses.append(_step(wrapped, work, optimizer, accelerator, micro_batch))
        if not math.isfinite(losses[-1]):
            raise StepFailed(
                f"the loss became {losses[-1]} at step {step + 1} of {len(batches)}: lower the learning rate"
            )
        if averaged and step + 1 > len(batches) * (1 - settings.average_share):
            averaged.update_parameters(model)
        on_step(step + 1, len(batches), losses[-1])
        if settings.checkpoint_every and (step + 1) % settings.checkpoint_every == 0 and step + 1 < len(batches):
            on_checkpoint(step + 1)
    if averaged:
        model.load_state_dict(averaged.module.state_dict())
    return losses


def _weighted(examples: list[Example], weight: float) -> list[tuple[Example, float]]:
    positions = sum(len(example.positions_P) for example in examples)
    return [(example, weight / max(positions, 1)) for example in examples]


def _step(wrapped: torch.nn.Module, work: list, optimizer, accelerator: Accelerator, micro_batch: int) -> float:
    mine = work[accelerator.process_index :: accelerator.num_processes] or [(work[0][0], 0.0)]
    total = torch.zeros((), device=accelerator.device)
    micro_batches = [mine[start : start + micro_batch] for start in range(0, len(mine), micro_batch)]
    for number, micro in enumerate(micro_batches):
        synced = number == len(micro_batches) - 1
        with torch.enable_grad() if synced else accelerator.no_sync(wrapped):
            loss = wrapped(*zip(*micro, strict=True))
            # Data parallelism averages gradients over ranks; the loss is already a share of the whole batch's mean.
            accelerator.backward(loss * accelerator.num_processes)
        total += loss.detach()
    accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(accelerator.reduce(total, "sum"))  # type: ignore[arg-type]
