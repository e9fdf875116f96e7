"""Generic counterparts: for every anchor another name of the same kind, gender and number that belongs to no story.

A counterpart must not be, contain or begin like another entry of the dictionary, and must not occur in the
documents, or the translated text would say something about them. Names of several words are put together from their
parts, so that whoever is "Norton" alone is "Norton" in the longer name too.
"""

import random
from collections.abc import Iterator, Sequence

from wordfreq import zipf_frequency

from unlearn_ray.method import generics, lexicon
from unlearn_ray.method.keyness import Candidate
from unlearn_ray.method.kinds import Sort, is_plural

POOLS = {
    "place": generics.PLACES,
    "building": generics.BUILDINGS,
    "creature": generics.CREATURES,
    "role": generics.ROLES,
    "object": generics.OBJECTS,
    "family": generics.SURNAMES,
    "given m": generics.MASCULINE_NAMES,
    "given f": generics.FEMININE_NAMES,
    "title m": generics.MASCULINE_RANKS,
    "title f": generics.FEMININE_RANKS,
    "title": generics.NEUTRAL_RANKS,
    "adjective": generics.ADJECTIVES,
}


# words of a longer name that say what sort of thing it is, and so stay
KEPT_FIRST = lexicon.TITLES | lexicon.SAINT | {"cape", "hotel", "lake", "mount", "river"}
KEPT_LAST = lexicon.PLACE_NOUNS


def assign(anchors: Sequence[Candidate], *, words: set[str], seed: int) -> dict[str, str]:
    """A counterpart for every anchor, unique and the same for one seed; `words` are the folded words of the documents.

    No two share a first word, unless one is part of the other ("Bennet" -> "Norton", "Hill Bennet" -> "Dale Norton").
    """
    parts = {part.casefold() for anchor in anchors for part in anchor.anchor.split()}
    supply = _Supply(words | parts, seed)
    chosen: dict[str, str] = {}
    for anchor in anchors:
        if " " not in anchor.anchor:
            chosen[anchor.anchor] = supply.next(pool_of(anchor.sort), anchor.sort.plural, lower=anchor.anchor.islower())
    folded = {anchor.casefold(): generic for anchor, generic in chosen.items()}
    for anchor in sorted(anchors, key=lambda anchor: len(anchor.anchor.split())):
        if " " in anchor.anchor:
            chosen[anchor.anchor] = folded[anchor.anchor.casefold()] = _composed(anchor, folded, supply)
    return chosen


def pool_of(sort: Sort) -> str:
    """The list that a counterpart of this sort is drawn from."""
    match sort.kind, sort.form:
        case "person", "common":
            return "role"
        case "person", "family":
            return "family"
        case "person", _:
            return f"given {sort.gender}".strip() if sort.gender else "family"
        case "title", _:
            return f"title {sort.gender}".strip()
        case "place", "common":
            return "building"
        case (("place" | "creature"), _):
            return sort.kind
        case "other", "proper" if not sort.plural:
            return "family"
        case _:
            return "object"


def _composed(anchor: Candidate, chosen: dict[str, str], supply: "_Supply") -> str:
    """The counterpart of a name of several words, part by part: anchors get their own, words like "Street" stay."""
    words = anchor.anchor.split()
    kept = [word in lexicon.LINKERS or _is_kept(words, at) for at, word in enumerate(words)]
    if all(kept):
        kept[0] = False
    out, at = [], 0
    while at < len(words):
        known = next((end for end in range(len(words), at, -1) if " ".join(words[at:end]).casefold() in chosen), None)
        if known is not None:
            out.append(chosen[" ".join(words[at:known]).casefold()])
        elif kept[at]:
            out.append(words[at])
        else:
            out.append(supply.next(*_part(anchor.sort, words, at), lower=words[at].islower()))
        at = known or at + 1
    return " ".join(out)


def _is_kept(words: Sequence[str], at: int) -> bool:
    fold = words[at].casefold().rstrip(".")
    return (at == 0 and fold in KEPT_FIRST) or (at == len(words) - 1 and fold in KEPT_LAST)


def _part(sort: Sort, words: Sequence[str], at: int) -> tuple[str, bool]:
    """The list for one word of a longer name, and whether a plural is wanted."""
    last = at == len(words) - 1
    if last and at and words[at - 1] == "of":
        return ("object", True) if is_plural(words[at].casefold()) else ("place", False)
    if sort.kind == "person" and sort.form != "common":
        return ("family" if last else f"given {sort.gender}".strip() if sort.gender else "family"), False
    if last:
        return pool_of(sort), sort.plural
    return ("place" if sort.kind == "place" else "adjective"), False


class _Supply:
    """Hands out every counterpart once, the common ones first, in an order that the seed decides."""

    def __init__(self, taken: set[str], seed: int):
        self.taken = taken
        self.pools = {name: self._stream(name, pool, seed) for name, pool in POOLS.items()}
        self.coined = self._coin(seed)

    def next(self, pool: str, plural: bool, *, lower: bool) -> str:
        for word in self.pools[pool]:
            if self._free(word):
                break
        else:
            word = next(filter(self._free, self.coined))
        self.taken.add(word.casefold())
        word = _pluralised(word) if plural else word
        return word.casefold() if lower else word

    def _free(self, word: str) -> bool:
        return word.casefold() not in self.taken and _pluralised(word).casefold() not in self.taken

    @staticmethod
    def _stream(name: str, pool: Sequence[str], seed: int) -> Iterator[str]:
        """Words by frequency class, commonest first (they are single tokens in most tokenizers), shuffled within a
        class."""
        shuffled = sorted(set(pool))
        random.Random(f"{seed} {name}").shuffle(shuffled)
        return iter(sorted(shuffled, key=lambda word: -round(zipf_frequency(word, "en"))))

    @staticmethod
    def _coin(seed: int) -> Iterator[str]:
        coined = [begin + end for begin in generics.TOWN_BEGINNINGS for end in generics.TOWN_ENDINGS]
        random.Random(f"{seed} coined").shuffle(coined)
        return iter(coined)


def _pluralised(word: str) -> str:
    if word.endswith(("s", "x", "sh", "ch")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"
