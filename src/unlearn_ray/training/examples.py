"""What a fine-tuning is trained on: blocks with their targets, and which of them make up a step."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from unlearn_ray.method.labels import IGNORED


@dataclass(frozen=True)
class Example:
    """One block with its targets: position p of `positions_P` is the index of the token to be predicted, its target the
    tokens ids_PS with probabilities probs_PS (hard labels: S = 1).
    """

    block_id: int
    input_ids_T: np.ndarray
    positions_P: np.ndarray
    ids_PS: np.ndarray
    probs_PS: np.ndarray


def text_example(block: dict) -> Example:
    """Every next token of the block's own text as a hard label: fine-tuning of the reinforced model."""
    ids_T = np.asarray(block["input_ids"], dtype=np.int64)
    positions_P = np.arange(1, len(ids_T))
    return Example(block["block_id"], ids_T, positions_P, ids_T[1:, None], np.ones((len(positions_P), 1), np.float32))


def hard_example(block: dict, column: str) -> Example:
    """The generic labels of one alpha, column labels_<alpha>."""
    labels_T = np.asarray(block[column], dtype=np.int64)
    positions_P = np.flatnonzero(labels_T != IGNORED)
    ids_PS = labels_T[positions_P, None]
    ids_T = np.asarray(block["input_ids"], np.int64)
    return Example(block["block_id"], ids_T, positions_P, ids_PS, np.ones(ids_PS.shape, np.float32))


def soft_example(block: dict) -> Example:
    """The soft labels: columns topk_ids and topk_logprobs, with an empty list where a position is not trained."""
    positions_P = np.flatnonzero([len(ids) > 0 for ids in block["topk_ids"]])
    ids_PS = np.array([block["topk_ids"][p] for p in positions_P], dtype=np.int64)
    probs_PS = np.exp(np.array([block["topk_logprobs"][p] for p in positions_P], dtype=np.float32))
    width = ids_PS.shape[1] if len(positions_P) else 1
    ids_T = np.asarray(block["input_ids"], np.int64)
    return Example(block["block_id"], ids_T, positions_P, ids_PS.reshape(-1, width), probs_PS.reshape(-1, width))


class Examples:
    """The rows of a block table as examples, decoded one at a time: soft labels are large."""

    def __init__(self, table: pa.Table, decode: Callable[[dict], Example]):
        self.table, self.decode = table, decode

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row: int) -> Example:
        return self.decode(self.table.slice(row, 1).to_pylist()[0])


def optimizer_steps(rows: int, global_batch: int, epochs: float) -> int:
    """epochs * ceil(rows / global_batch), rounded, and at least one."""
    return max(1, round(epochs * math.ceil(rows / global_batch)))


def training_batches(rows: int, global_batch: int, epochs: float, seed: int) -> list[np.ndarray]:
    """The blocks of each step; of a last epoch that is not whole the first steps."""
    whole = (epoch_batches(rows, global_batch, seed, epoch) for epoch in range(math.ceil(epochs)))
    return [batch for batches in whole for batch in batches][: optimizer_steps(rows, global_batch, epochs)]


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
