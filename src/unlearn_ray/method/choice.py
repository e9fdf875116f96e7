"""Which checkpoint to take: the one that forgot most among those that kept what they must."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A checkpoint. familiarity: lower is better. kept: for each measure of utility the share of the baseline's that is
    left, 1 for all of it."""

    model: str
    familiarity: float
    kept: Mapping[str, float]

    @property
    def lost(self) -> float:
        """The share that the utility which suffered most has lost; 0 where all gained."""
        return max([0.0, *(1 - share for share in self.kept.values())])


def choose(candidates: Sequence[Candidate], tolerance: float) -> Candidate:
    """The least familiar candidate of those that lost at most `tolerance`; where none is left, the one that lost least.
    Of equals the last."""
    bearable = [one for one in candidates if one.lost <= tolerance]
    if not bearable:
        return min(reversed(candidates), key=lambda one: one.lost)
    return min(reversed(bearable), key=lambda one: one.familiarity)


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other candidate matches in both familiarity and utility and betters in one."""

    def better(one: Candidate, other: Candidate) -> bool:
        as_good = one.familiarity <= other.familiarity and one.lost <= other.lost
        return as_good and (one.familiarity, one.lost) != (other.familiarity, other.lost)

    return [one for one in candidates if not any(better(other, one) for other in candidates)]
