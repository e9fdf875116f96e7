"""Several people's answers to one question: what they amount to, and how far they agree.

Votes are question -> {annotator: label}. An answer that no method settles stays None: nobody's answer is picked by lot.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations

from unlearn_ray.errors import InputError

Votes = Mapping[str, Mapping[str, str]]


def settle(votes: Votes, method: str, least_confidence: float) -> dict[str, str | None]:
    """The answer to each question by `majority` or `dawid-skene`, None where it stays open."""
    if method == "majority":
        return {question: majority(of) for question, of in votes.items()}
    return dawid_skene(votes, least_confidence)


def majority(votes: Mapping[str, str]) -> str | None:
    """What more than half of the annotators say."""
    [(label, count)] = Counter(sorted(votes.values())).most_common(1)
    return label if 2 * count > len(votes) else None


def dawid_skene(votes: Votes, least_confidence: float) -> dict[str, str | None]:
    """The most probable answers where each annotator confuses labels in a way of their own (Dawid and Skene 1979), None
    where that is less probable than `least_confidence`. Raises InputError without crowd-kit."""
    if not votes:
        return {}
    try:
        import pandas
        from crowdkit.aggregation import DawidSkene
    except ImportError as error:
        raise InputError("review.aggregate: dawid-skene needs crowd-kit: pip install 'unlearn-ray[review]'") from error
    rows = [(question, by, label) for question, of in sorted(votes.items()) for by, label in sorted(of.items())]
    probabilities = DawidSkene(n_iter=100).fit_predict_proba(
        pandas.DataFrame(rows, columns=["task", "worker", "label"])  # type: ignore[arg-type]
    )
    best, how = probabilities.idxmax(axis=1).to_dict(), probabilities.max(axis=1).to_dict()
    return {question: str(best[question]) if how[question] >= least_confidence else None for question in votes}


def nominal(one: str, other: str) -> float:
    return float(one != other)


def squared(one: str, other: str) -> float:
    """For grades, where 3 for 0 is worse than 3 for 2."""
    return float(int(one) - int(other)) ** 2


def krippendorff_alpha(votes: Votes, distance: Callable[[str, str], float] = nominal) -> float | None:
    """1 - observed / expected disagreement (Krippendorff 1980): 1 is full agreement, 0 what chance gives.

    Observed is the mean distance within questions, each pair of a question's n answers weighing 1 / (n - 1); expected
    that of any two answers. Questions with one answer do not count; None where no question has two, or where all
    answers are alike, so that chance would agree as well.
    """
    units = [list(of.values()) for of in votes.values() if len(of) > 1]
    total = sum(map(len, units))
    counts = Counter(label for unit in units for label in unit)
    observed = sum(2 * distance(one, other) / (len(unit) - 1) for unit in units for one, other in combinations(unit, 2))
    expected = sum(2 * counts[one] * counts[other] * distance(one, other) for one, other in combinations(counts, 2))
    if not expected:
        return None
    return 1 - (total - 1) * observed / expected


def equal_share(votes: Votes) -> float | None:
    """The share of questions with several answers to which all are the same."""
    several = [set(of.values()) for of in votes.values() if len(of) > 1]
    return sum(len(labels) == 1 for labels in several) / len(several) if several else None
