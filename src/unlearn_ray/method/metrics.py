"""Figures with their uncertainty: every number is a ratio of sums over items, resampled by whole items.

An item is what was drawn at random: a prompt, or a block of text. Means, the familiarity score and perplexity are all
sum(values) / sum(weights), perplexity with an exponential around it, so one bootstrap serves them all; membership is
the one figure of two samples (`Ranks`). Two models measured on the same items are compared pair by pair, on the same
resamples: what the items share cancels out.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

POINTS = np.array([0.0, 0.0, 1.0, 5.0])
"""What a completion's grade 0..3 counts in the familiarity score: (5 n3 + n2) / N, Eldan & Russinovich 2023."""


class Sample(Protocol):
    """One model's measurements: how many, their figure, and the figure of each of R resamples; resamples of one seed
    draw the same items from any sample of one size.
    """

    @property
    def n(self) -> int: ...
    def value(self) -> float: ...
    def resampled(self, resamples: int, seed: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Items:
    """Measurements, float64, one entry an item; the figure is sum(values_N) / sum(weights_N)."""

    values_N: np.ndarray
    weights_N: np.ndarray
    exponential: bool = False

    @property
    def n(self) -> int:
        return len(self.values_N)

    def value(self) -> float:
        return float(self._ratio(self.values_N.sum(), self.weights_N.sum()))

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        drawn_RN = _draw(np.random.default_rng(seed), self.n, resamples)
        return self._ratio(self.values_N[drawn_RN].sum(-1), self.weights_N[drawn_RN].sum(-1))

    def _ratio(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = values / weights
        return np.exp(ratio) if self.exponential else ratio


@dataclass(frozen=True)
class Ranks:
    """Scores of texts that were trained on and of others; the figure is the AUC, the probability that a member scores
    above another text, ties counting half: 0.5 says that membership cannot be told.
    """

    members_N: np.ndarray
    others_M: np.ndarray

    @property
    def n(self) -> int:
        return len(self.members_N) + len(self.others_M)

    def value(self) -> float:
        return float(self._above().mean()) if self._above().size else np.nan

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        rng, above_NM = np.random.default_rng(seed), self._above()
        if not above_NM.size:
            return np.full(resamples, np.nan)
        times_RN, times_RM = (
            np.stack([np.bincount(row, minlength=size) for row in _draw(rng, size, resamples)])
            for size in above_NM.shape
        )
        return ((times_RN @ above_NM) * times_RM).sum(-1) / above_NM.size

    def _above(self) -> np.ndarray:
        difference_NM = self.members_N[:, None] - self.others_M[None, :]
        return (difference_NM > 0) + 0.5 * (difference_NM == 0)


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


def estimate(sample: Sample, resamples: int, seed: int) -> Figure:
    """The figure of a sample with its bootstrap interval over items."""
    return _figure(sample.value(), sample.resampled(resamples, seed), sample.n)


def compare(before: Sample, after: Sample, resamples: int, seed: int) -> Change:
    """The paired change from `before` to `after`, measured on the same items in the same order."""
    if before.n != after.n:
        raise ValueError(f"not the same items: {before.n} before, {after.n} after")
    start, start_R = before.value(), before.resampled(resamples, seed)
    end, end_R = after.value(), after.resampled(resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative, relative_R = np.divide(end, start) - 1, end_R / start_R - 1
    return Change(_figure(end - start, end_R - start_R, before.n), _figure(relative, relative_R, before.n))


def _draw(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """Item indices [R, n]."""
    return rng.integers(0, max(n, 1), size=(resamples, n))


def _figure(value: float, value_R: np.ndarray, n: int) -> Figure:
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
