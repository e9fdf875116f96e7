"""What benchmarks/quality.py measures of a model, and how near that is to the gold reference: a model that never read
the text. Every metric is metrics.Items, so that two models are compared item by item.
"""

import math
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
from alternatives import InferenceFormula
from transformers import PreTrainedTokenizerFast

from unlearn_ray import scoring
from unlearn_ray.evaluation import measure
from unlearn_ray.evidence import completion_rows
from unlearn_ray.material import Material
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.metrics import Items, compare, familiarity_items, mean_items, perplexity_items

FORGET = ("probability", "completion", "verbatim", "forget ppl", "knowledge", "membership")
UTILITY = ("kept ppl", "other ppl", "controls")
USEFUL = 0.9  # utility relative to gold's, which a setting must keep to be chosen
RESAMPLES = 1000
WIDTH = 40  # of a row's name in the tables
BATCH = 16

Row = dict[str, Items]


@dataclass(frozen=True)
class Measure:
    """material.texts: the forget novel's blocks that the target has read ("forget") and those that no model has
    ("nonmembers"), blocks of the kept novel ("kept") and of other prose ("retain").
    """

    tokenizer: PreTrainedTokenizerFast
    dictionary: AnchorDictionary
    material: Material

    def __call__(self, model: Any) -> Row:
        """All metrics, of a model or an InferenceFormula, that there is anything to measure on."""
        own_head = patch.object(scoring, "lm_head", lambda model: model.head)
        with own_head if isinstance(model, InferenceFormula) else nullcontext():
            found = measure(model, self.tokenizer, BATCH, material=self.material)
        completions = completion_rows(self.material, {"model": found}, self.dictionary, self.tokenizer)
        perplexity = lambda text: perplexity_items(found[f"{text}/nll"], found[f"{text}/tokens"])
        above_NM = found["forget/min_k"][:, None] > found["nonmembers/min_k"]
        row = {
            "probability": mean_items(found["specific_mass"]),
            "completion": familiarity_items(_column(completions, "familiarity", "grade")),
            "verbatim": mean_items(_column(completions, "verbatim", "rouge_l")),
            "forget ppl": perplexity("forget"),
            "knowledge": mean_items(found["probe"]),
            "membership": mean_items(above_NM.mean(1)),  # the mean of these is the AUC
            "kept ppl": perplexity("kept"),
            "other ppl": perplexity("retain"),
            "controls": mean_items(found["control"]),
        }
        return {metric: items for metric, items in row.items() if items.n}


def _column(rows: list[dict], kind: str, name: str) -> np.ndarray:
    return np.array([row[name] for row in rows if row["kind"] == kind])


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
    return items.value()


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


def choose(names: Iterable[str], figures: dict[str, dict], utility: float | None = None) -> str | None:
    """The least distance among those with at least this utility, or by default USEFUL of gold's; None where none is."""
    least = USEFUL * figures["gold"]["utility"] if utility is None else utility
    useful = [name for name in names if figures[name]["utility"] >= least]
    return min(useful, key=lambda name: figures[name]["distance"], default=None)


def print_tables(figures: dict[str, dict], chosen: Collection[str | None], counts: dict[str, int]) -> None:
    """All metrics of all rows, those that were chosen with a star, and the distances by metric."""
    columns = [metric for metric in (*FORGET, *UTILITY) if metric in counts]
    shown = [*columns, "distance", "utility"]
    line = lambda cells: "".join(f"{cell:>12}" for cell in cells)
    number = lambda row, name: f"{row[name]:.3f}" if name in row else "-"
    print(f"{'':{WIDTH + 2}}{line(shown)}\n{'n':{WIDTH + 2}}{line(counts[column] for column in columns)}")
    for name, row in figures.items():
        print(f"{'* ' if name in chosen else '  '}{name:{WIDTH}}{line(number(row, column) for column in shown)}")
    print("distance by metric")
    for name, row in figures.items():
        print(f"  {name:{WIDTH}}{line(number(row['parts'], metric) for metric in FORGET)}")


def print_beside(others: Iterable[str], ours: Iterable[str], figures: dict[str, dict]) -> None:
    """Beside each alternative the setting of ours with the least distance at equal or better utility."""
    ours = list(ours)
    figure = lambda name: f"{figures[name]['distance']:.3f} at {figures[name]['utility']:.3f}"
    print("distance at utility; beside it ours, at no less utility")
    for name in others:
        best = choose(ours, figures, figures[name]["utility"])
        print(f"  {name:{WIDTH}}{figure(name):>16}  {figure(best) + '  ' + best if best else 'none'}")
