"""Generic counterparts: for every anchor another name of the same kind, gender and number that belongs to no story.

A counterpart must not be, contain or begin like another entry of the dictionary, and must not begin with a word of
the documents, or the translated text would say something about them. Names of several words are put together from
their parts, so that whoever is "Norton" alone is "Norton" in the longer name too. What others proposed is taken where
it keeps to that; the rest comes from lists.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import chain

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


_WORD = re.compile(r"[^\W\d_]+")
_OF_WORDS = re.compile(r"[^\W\d_]+(?:[ .'’-]{1,2}[^\W\d_]+)*\.?")

# words of a longer name that say what sort of thing it is, and so stay
KEPT_FIRST = lexicon.TITLES | lexicon.SAINT | {"cape", "hotel", "lake", "mount", "river"}
KEPT_LAST = lexicon.PLACE_NOUNS


def assign(
    anchors: Sequence[Candidate],
    *,
    words: set[str],
    seed: int,
    proposed: Mapping[str, Sequence[str]] | None = None,
    first_token: Callable[[str], int] | None = None,
) -> dict[str, str]:
    """A counterpart for every anchor, unique and the same for one seed; `words` are the folded words of the documents.

    No two share a first word, or a first token where `first_token` tells that of a word, unless one is part of the
    other ("Bennet" -> "Norton", "Hill Bennet" -> "Dale Norton"). proposed: anchor -> counterparts to be preferred, best
    first.
    """
    parts = {part.casefold() for anchor in anchors for part in anchor.anchor.split()}
    choice = _Choice(words, parts, seed, proposed or {}, first_token)
    chosen: dict[str, str] = {}
    for anchor in anchors:
        if " " not in anchor.anchor:
            chosen[anchor.anchor] = choice.of_word(anchor.anchor, anchor.sort)
    folded = {anchor.casefold(): generic for anchor, generic in chosen.items()}
    for anchor in sorted(anchors, key=lambda anchor: len(anchor.anchor.split())):
        if " " in anchor.anchor:
            chosen[anchor.anchor] = folded[anchor.anchor.casefold()] = _composed(anchor, folded, choice)
    return chosen


def folded_words(documents: Mapping[str, str]) -> set[str]:
    """The folded words of the documents (name -> text): what `assign` keeps away from."""
    return {word.casefold() for text in documents.values() for word in _WORD.findall(text)}


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


def _composed(anchor: Candidate, chosen: dict[str, str], choice: "_Choice") -> str:
    """The counterpart of a name of several words: the proposed one of a thing no part of which has its own, else part
    by part, where anchors get their own and words like "Street" stay."""
    words = anchor.anchor.split()
    known = [
        next((end for end in range(len(words), at, -1) if " ".join(words[at:end]).casefold() in chosen), None)
        for at in range(len(words))
    ]
    if not any(known) and not anchor.sort.personal and (whole := choice.proposed_for(anchor.anchor, anchor.sort)):
        return whole
    kept = [word in lexicon.LINKERS or _is_kept(words, at) for at, word in enumerate(words)]
    if all(kept):
        kept[0] = False
    out, at = [], 0
    while at < len(words):
        end = known[at]
        if end is not None:
            out.append(chosen[" ".join(words[at:end]).casefold()])
        elif kept[at]:
            out.append(words[at])
        else:
            out.append(choice.of_part(anchor.sort, words, at))
        at = end or at + 1
    return " ".join(out)


def _is_kept(words: Sequence[str], at: int) -> bool:
    fold = words[at].casefold().rstrip(".")
    return (at == 0 and fold in KEPT_FIRST) or (at == len(words) - 1 and fold in KEPT_LAST)


def _part(sort: Sort, words: Sequence[str], at: int) -> tuple[str, bool]:
    """The list for one word of a longer name, and whether a plural is wanted."""
    last = at == len(words) - 1
    if last and at and words[at - 1] == "of":
        return ("object", True) if is_plural(words[at].casefold()) else ("place", False)
    if sort.personal:
        return ("family" if last else f"given {sort.gender}".strip() if sort.gender else "family"), False
    if last:
        return pool_of(sort), sort.plural
    return ("place" if sort.kind == "place" else "adjective"), False


class _Choice:
    """Hands out every counterpart once: what was proposed, where it is fit, else from the lists, the common words
    first, in an order that the seed decides.
    """

    def __init__(
        self,
        words: set[str],
        parts: set[str],
        seed: int,
        proposed: Mapping[str, Sequence[str]],
        first_token: Callable[[str], int] | None,
    ):
        self.parts = parts | {_pluralised(part) for part in parts}
        self.taken = words | self.parts
        self.pools = {name: _by_frequency(name, pool, seed) for name, pool in POOLS.items()}
        self.coined, self.coined_longer = _coined(seed)
        self.proposed, self.words_for = proposed, _words_for(proposed)
        self.first_token = cache(first_token) if first_token else None
        self.first_tokens = set[int]()
        self.names: dict[str, str] = {}  # folded part of persons' names -> what it became

    def of_word(self, word: str, sort: Sort) -> str:
        return self.proposed_for(word, sort) or self._from_list(pool_of(sort), sort.plural, lower=word.islower())

    def of_part(self, sort: Sort, words: Sequence[str], at: int) -> str:
        """For one word of a longer name; for a person's always the same, and what others proposed where that is fit."""
        from_list = partial(self._from_list, *_part(sort, words, at), lower=words[at].islower())
        if not sort.personal:
            return from_list()
        word = words[at].casefold()
        if word not in self.names:
            self.names[word] = self._first_fit(self.words_for.get(word, ()), words[at], sort) or from_list()
        return self.names[word]

    def proposed_for(self, anchor: str, sort: Sort) -> str | None:
        """The best proposed counterpart that is fit."""
        wishes = [*self.proposed.get(anchor, ())]
        if sort.personal:
            wishes = [wish for wish in wishes if " " not in wish] + [*self.words_for.get(anchor.casefold(), ())]
        return self._first_fit(wishes, anchor, sort)

    def _first_fit(self, wishes: Sequence[str], anchor: str, sort: Sort) -> str | None:
        for wish in wishes:
            wish = _in_case_of(anchor, wish)
            if _agrees(wish, sort) and not self.parts & set(wish.casefold().split()) and self._free(_leading(wish)):
                self._take(_leading(wish))
                return wish
        return None

    def _from_list(self, pool: str, plural: bool, *, lower: bool) -> str:
        """The next word of the list, then a coined one; one whose first token is taken only where there is no other."""
        stock = [*self.pools[pool], *self.coined]
        word = next(
            chain(
                (word for word in stock if self._free(word)),
                (word for word in stock if self._unused(word)),
                filter(self._unused, self.coined_longer),
            )
        )
        self._take(word)
        word = _pluralised(word) if plural else word
        return word.casefold() if lower else word

    def _free(self, word: str) -> bool:
        return self._unused(word) and (self.first_token is None or self.first_token(word) not in self.first_tokens)

    def _unused(self, word: str) -> bool:
        return not {word.casefold(), _pluralised(word).casefold()} & self.taken

    def _take(self, word: str) -> None:
        self.taken.add(word.casefold())
        if self.first_token:
            self.first_tokens.add(self.first_token(word))


def _by_frequency(name: str, pool: Sequence[str], seed: int) -> list[str]:
    """Words by frequency class, commonest first (single tokens in most tokenizers), shuffled within a class."""
    shuffled = sorted(set(pool))
    random.Random(f"{seed} {name}").shuffle(shuffled)
    return sorted(shuffled, key=lambda word: -round(zipf_frequency(word, "en")))


def _coined(seed: int) -> tuple[list[str], Iterator[str]]:
    """Names of two parts, and of three for the day those are used up."""
    beginnings, endings = generics.TOWN_BEGINNINGS, generics.TOWN_ENDINGS
    short = [begin + end for begin in beginnings for end in endings]
    random.Random(f"{seed} coined").shuffle(short)
    return short, (
        begin + middle + end for middle in endings for begin in beginnings for end in endings if end != middle
    )


def by_votes(votes: Counter[str]) -> list[str]:
    """The most voted first, in the order of the alphabet where votes are equal."""
    return sorted(votes, key=lambda wish: (-votes[wish], wish))


def _words_for(proposed: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """For each folded word of a longer name the words that stand in its place in the name's proposals, best first."""
    counts: dict[str, Counter[str]] = {}
    for anchor, wishes in proposed.items():
        words = anchor.split()
        for rank, wish in enumerate(wishes):
            if len(words) > 1 and len(wish.split()) == len(words):
                for word, counterpart in zip(words, wish.split(), strict=True):
                    counts.setdefault(word.casefold(), Counter())[counterpart] += len(wishes) - rank
    return {word: by_votes(votes) for word, votes in counts.items()}


def _agrees(wish: str, sort: Sort) -> bool:
    """Whether a proposed counterpart is made of words, has the gender and number of its anchor, and is a name for
    somebody's name."""
    if not _OF_WORDS.fullmatch(wish):
        return False
    first, last = wish.split()[0], wish.split()[-1].casefold()
    if sort.gender and generics.gender_of(first) not in ("", sort.gender):
        return False
    if sort.personal:
        return all(word.isalpha() and word.casefold() not in lexicon.FUNCTION_WORDS for word in wish.split())
    return is_plural(last) == sort.plural


def _in_case_of(anchor: str, wish: str) -> str:
    """`wish` in small letters for an anchor in small letters, else with a capital at each word that is no linker."""
    if anchor.islower():
        return wish.casefold()
    return " ".join(word if word in lexicon.LINKERS else word[0].upper() + word[1:] for word in wish.split())


def _leading(wish: str) -> str:
    """The word that a counterpart is known by: its first one, or the last where that is one that stays ("Lake")."""
    words = wish.split()
    return words[-1] if words[0].casefold() in KEPT_FIRST else words[0]


def _pluralised(word: str) -> str:
    if word.endswith(("s", "x", "sh", "ch")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"
