"""The offline dictionary: anchors proposed without a model that writes and without a download, the same for one seed.

`candidates` finds names and idiosyncratic words; a scoring stage may then measure how much the reinforced model
gains over the baseline on the mentions of each; `propose` settles which of them are anchors and what stands in for
them.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from unlearn_ray.method.counterparts import assign, folded_words
from unlearn_ray.method.dictionary import Anchor
from unlearn_ray.method.keyness import Candidate, candidates, is_telling

__all__ = ["Candidate", "candidates", "propose"]


def propose(
    documents: Mapping[str, str],
    *,
    max_anchors: int,
    min_count: int,
    gains: Mapping[str, float] | None = None,
    seed: int = 0,
) -> list[Anchor]:
    """The dictionary's entries for `documents` (name -> text), at most `max_anchors`, the most telling first.

    An entry's worth per mention is its log ratio against general English plus, where `gains` has it
    (Candidate.anchor -> mean log-probability gain of the reinforced model over the baseline), that gain; both are
    nats a token. Entries are ranked by worth times mentions. Empty when nothing in the documents is idiosyncratic.
    """
    kept = settle(candidates(documents, min_count=min_count), gains or {})[:max_anchors]
    generic = assign(kept, words=folded_words(documents), seed=seed)
    sources = ("keyness",) if gains is None else ("keyness", "gain")
    return [Anchor(c.anchor, generic[c.anchor], c.sort.kind, c.count, sources) for c in kept]


def settle(found: Sequence[Candidate], gains: Mapping[str, float]) -> list[Candidate]:
    """The candidates that are telling enough, best first. A lower-case word that is not certain by itself is in when
    the reinforced model gains as much on it as on half of the names."""
    on_names = [gains[c.anchor] for c in found if c.anchor in gains and not c.anchor.islower()]
    usual = median(on_names) if on_names else float("inf")
    kept = [
        c
        for c in found
        if is_telling(c, gains.get(c.anchor, 0.0)) and (c.certain or gains.get(c.anchor, float("-inf")) >= usual)
    ]
    return sorted(kept, key=lambda c: (-c.count * (c.log_ratio + gains.get(c.anchor, 0.0)), c.anchor))
