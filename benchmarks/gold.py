"""What benchmarks/quality.py measures of a model, and how near that is to the gold reference: a model that never read
the text. Every metric is metrics.Items, so that two models are compared item by item.
"""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
from alternatives import InferenceFormula
from transformers import PreTrainedTokenizerFast

from unlearn_ray import evaluation
from unlearn_ray.material import Material
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.judge import judge, rouge_l
from unlearn_ray.method.metrics import Items, compare, estimate, familiarity_items, mean_items, perplexity_items
from unlearn_ray.models import leading_ids

FORGET = ("probability", "completion", "verbatim", "forget ppl", "knowledge", "membership")
UTILITY = ("kept ppl", "other ppl", "controls")
LEAST_PROBABLE = 0.2  # of a block's tokens, for min-k%
WITHIN = 1.1  # perplexity of other prose over the target's
RESAMPLES = 1000
BATCH = 16

Blocks = list[list[int]]
Row = dict[str, Items]


@dataclass(frozen=True)
class Measure:
    """read, unseen: blocks of the forget novel that the target has read, and that no model has; kept: of the other
    novel.
    """

    tokenizer: PreTrainedTokenizerFast
    dictionary: AnchorDictionary
    material: Material
    read: Blocks
    unseen: Blocks
    kept: Blocks

    def __call__(self, model: Any) -> Row:
        """All metrics, of a model or an InferenceFormula, that there is anything to measure on."""
        own_head = patch.object(evaluation, "lm_head", lambda model: model.head)
        with own_head if isinstance(model, InferenceFormula) else nullcontext():
            found = evaluation.measure(model, self.tokenizer, self.material, BATCH)
            kept = evaluation.block_nll(model, self.tokenizer, self.kept, BATCH)
            read, unseen = (self._logprobs(model, blocks) for blocks in (self.read, self.unseen))
        read_N, unseen_M = (np.array([_least_probable(values) for values in those]) for those in (read, unseen))
        row = {
            "probability": mean_items(found.specific_mass_N),
            "completion": familiarity_items(self._grades(found.completions)),
            "verbatim": mean_items(self._repeated(found.continuations)),
            "forget ppl": perplexity_items(np.array([-v.sum() for v in read]), np.array([len(v) for v in read])),
            "knowledge": mean_items(found.probe_probability_N),
            # The mean of these is the AUC.
            "membership": mean_items((read_N[:, None] > unseen_M).mean(1)),
            "kept ppl": perplexity_items(*kept),
            "other ppl": perplexity_items(found.heldout_nll_N, found.heldout_tokens_N),
            "controls": mean_items(found.control_probability_N),
        }
        return {metric: items for metric, items in row.items() if len(items.values_N)}

    def _grades(self, completions: list[str]) -> np.ndarray:
        pairs = zip(self.material.completion, completions, strict=True)
        return np.array([judge(p.text, text, self.dictionary, self.material.themes).grade for p, text in pairs])

    def _repeated(self, continuations: list[str]) -> np.ndarray:
        """ROUGE-L against as many tokens as the model may write."""
        most = self.material.completion_tokens
        ids = [self.tokenizer(p.reference, add_special_tokens=False)["input_ids"] for p in self.material.verbatim]
        pairs = zip(ids, continuations, strict=True)
        return np.array([rouge_l(str(self.tokenizer.decode(ids_T[:most])), text) for ids_T, text in pairs])

    def _logprobs(self, model: Any, blocks: Blocks) -> list[np.ndarray]:
        leading = leading_ids(self.tokenizer)
        sequences = [[*leading, *ids] for ids in blocks]
        return evaluation.target_logprobs(model, sequences, [max(len(leading), 1)] * len(sequences), BATCH)


def _least_probable(logprobs_P: np.ndarray) -> float:
    """The mean log-probability of a block's least probable tokens   (min-k%, Shi et al. 2024)."""
    return np.sort(logprobs_P)[: max(int(LEAST_PROBABLE * len(logprobs_P)), 1)].mean()


def figures_of(row: Row, target: Row, gold: Row) -> dict:
    """The metrics of a model with its distance to gold, that by metric (`parts`), and its utility: see quality.py."""
    by_metric = {metric: part for metric in FORGET if (part := _part(metric, row, target, gold)) is not None}
    loss = lambda metric: value(row[metric]) / value(target[metric])
    return {metric: value(items) for metric, items in row.items()} | {
        "parts": by_metric,
        "distance": mean(by_metric.values()) if by_metric else math.nan,
        "utility": mean(min(1.0, part) for part in (1 / loss("kept ppl"), 1 / loss("other ppl"), loss("controls"))),
    }


def value(items: Items) -> float:
    return estimate(items, 1, 0).value or 0.0


def _part(metric: str, row: Row, target: Row, gold: Row) -> float | None:
    """The distance to gold by one metric; None where it does not tell target and gold apart."""
    if metric not in row:
        return None
    interval = compare(gold[metric], target[metric], RESAMPLES, 0).absolute
    if interval.low is None or interval.high is None or interval.low * interval.high <= 0:
        return None
    m, t, g = (math.log(value(of[metric])) if of[metric].exponential else value(of[metric])
               for of in (row, target, gold))  # fmt: skip
    return abs(m - g) / abs(t - g)


def choose(names: Iterable[str], figures: dict[str, dict]) -> str:
    """The least distance among those that keep their prose, or where none does the best prose."""
    names = list(names)
    kept = [name for name in names if figures[name]["other ppl"] <= WITHIN * figures["target"]["other ppl"]]
    return min(kept or names, key=lambda name: figures[name]["distance" if kept else "other ppl"])


def print_tables(figures: dict[str, dict], chosen: Iterable[str], counts: dict[str, int]) -> None:
    """All metrics of all rows, those that were chosen with a star, and the distances by metric."""
    columns = [metric for metric in (*FORGET, *UTILITY) if metric in counts]
    shown = [*columns, "distance", "utility"]
    line = lambda cells: "".join(f"{cell:>12}" for cell in cells)
    number = lambda row, name: f"{row[name]:.3f}" if name in row else "-"
    print(f"{'':34}{line(shown)}\n{'n':34}{line(counts[column] for column in columns)}")
    for name, row in figures.items():
        print(f"{'* ' if name in chosen else '  '}{name:32}{line(number(row, column) for column in shown)}")
    print("distance by metric")
    for name, row in figures.items():
        print(f"  {name:32}{line(number(row['parts'], metric) for metric in FORGET)}")
