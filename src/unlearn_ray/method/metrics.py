"""Figures with their uncertainty: every number is a ratio of sums over items, resampled by whole items.

An item is what was drawn at random: a prompt, or a block of text. Means, the familiarity score and perplexity are all
sum(values) / sum(weights), perplexity with an exponential around it, so one bootstrap serves them all. Two models
measured on the same items are compared pair by pair, on the same resamples: what the items share cancels out.
"""

from dataclasses import dataclass

import numpy as np

POINTS = np.array([0.0, 0.0, 1.0, 5.0])
"""What a completion's grade 0..3 counts in the familiarity score: (5 n3 + n2) / N, Eldan & Russinovich 2023."""


@dataclass(frozen=True)
class Items:
    """One model's measurements, float64, one entry an item; the figure is sum(values_N) / sum(weights_N)."""

    values_N: np.ndarray
    weights_N: np.ndarray
    exponential: bool = False


@dataclass(frozen=True)
class Figure:
    """A value with its percentile 95% interval; None where it is not defined (no items; an interval of one item)."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Change:
    """After against before: difference, and difference relative to before (None where before is 0), with intervals."""

    absolute: Figure
    relative: Figure


def mean_items(values_N: np.ndarray) -> Items:
    """Items whose figure is their plain mean: probabilities, ROUGE-L."""
    return Items(np.asarray(values_N, dtype=np.float64), np.ones(len(values_N)))


def familiarity_items(grades_N: np.ndarray) -> Items:
    """Items whose figure is the completion familiarity (5 n3 + n2) / N, from 0 to 5; grades are 0, 1, 2 or 3."""
    return mean_items(POINTS[np.asarray(grades_N, dtype=np.int64)])


def perplexity_items(nll_N: np.ndarray, tokens_N: np.ndarray) -> Items:
    """Items whose figure is exp(total NLL / total tokens): long blocks weigh as much as their tokens, not as one."""
    return Items(np.asarray(nll_N, dtype=np.float64), np.asarray(tokens_N, dtype=np.float64), exponential=True)


def estimate(items: Items, resamples: int, seed: int) -> Figure:
    """The figure of `items` with its bootstrap interval over items."""
    return _figure(_ratio(items), _ratio(items, _resamples(items, resamples, seed)), len(items.values_N))


def compare(before: Items, after: Items, resamples: int, seed: int) -> Change:
    """The paired change from `before` to `after`, measured on the same items in the same order."""
    if len(before.values_N) != len(after.values_N):
        raise ValueError(f"not the same items: {len(before.values_N)} before, {len(after.values_N)} after")
    drawn_RN = _resamples(before, resamples, seed)
    n = len(before.values_N)
    start, start_R = _ratio(before), _ratio(before, drawn_RN)
    end, end_R = _ratio(after), _ratio(after, drawn_RN)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative, relative_R = end / start - 1, end_R / start_R - 1
    return Change(_figure(end - start, end_R - start_R, n), _figure(relative, relative_R, n))


def _resamples(items: Items, resamples: int, seed: int) -> np.ndarray:
    """Item indices [R, N]; the same for every model of the same seed, which is what pairs them."""
    n = len(items.values_N)
    return np.random.default_rng(seed).integers(0, max(n, 1), size=(resamples, n))


def _ratio(items: Items, drawn_RN: np.ndarray | None = None) -> np.ndarray:
    """The figure of all items, or of each resample [R]; nan where there is nothing to divide by."""
    indices = np.arange(len(items.values_N)) if drawn_RN is None else drawn_RN
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = items.values_N[indices].sum(-1) / items.weights_N[indices].sum(-1)
    return np.exp(ratio) if items.exponential else ratio


def _figure(value: np.ndarray, value_R: np.ndarray, n: int) -> Figure:
    """No interval from a single item: it would look too sure.

    A resample in which the figure is not defined (all of its prompts scored 0 before) counts against either end, so the
    interval grows with them, and is given up where they are too many.
    """
    if not np.isfinite(value):
        return Figure(None, None, None, n)
    defined_R = np.isfinite(value_R)
    low = np.percentile(np.where(defined_R, value_R, -np.inf), 2.5, method="lower")
    high = np.percentile(np.where(defined_R, value_R, np.inf), 97.5, method="higher")
    if n < 2 or not np.isfinite([low, high]).all():
        return Figure(float(value), None, None, n)
    return Figure(float(value), float(low), float(high), n)
