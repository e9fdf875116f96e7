"""Which runs of capitals are names, and which parts of them stand as entries of their own.

A word is a name when, within sentences, it is mostly capitalised ("Hatter"), when the pair it stands in is ("White
Rabbit", though "white" is not), or after a title ("Mrs. Long"). Of nested names ("Holmes", "Sherlock Holmes") only what
is needed becomes an entry.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from unlearn_ray.method.lexicon import CREATURES, FUNCTION_WORDS, LINKERS, NOT_ALONE, PLACE_NOUNS, SAINT, TITLES
from unlearn_ray.method.mentions import Name, Word, find_names

Key = tuple[str, ...]  # the folded words of an entry
Words = list[Word]  # of one document


def find_names_in(documents: Sequence[Words], min_count: int) -> tuple[list[Words], list[list[Name]]]:
    """The documents with plural names made singular, and the runs of words in each that are names."""
    documents = _with_singular_names(documents)
    flags = _flag_names(documents, min_count)
    return documents, [list(find_names(words, named)) for words, named in zip(documents, flags, strict=True)]


def key_of(words: Words, name: Name) -> Key:
    return tuple(word.fold for word in words[name.first : name.last])


def tile(words: Words, run: Name, entries: set[Key]) -> Iterator[Name]:
    """The run cut into entries, the longest first from the left; what is in no entry is passed over."""
    at = run.first
    while at < run.last:
        end = next(
            (end for end in range(run.last, at, -1) if key_of(words, Name(at, end, None)) in entries),
            None,
        )
        if end is not None:
            yield Name(at, end, run.title)
        at = end or at + 1


def _with_singular_names(documents: Sequence[Words]) -> list[Words]:
    """A family's plural counts for the name ("the Bennets"): the dictionary finds it by the same entry."""
    capital = Counter(word.fold for words in documents for word in words if word.capital and not word.opens)
    singular = {}
    for fold, count in capital.items():
        for ending in ("es", "s"):
            stem = fold.removesuffix(ending)
            if stem != fold and len(stem) > 2 and capital[stem] > count:
                singular[fold] = stem
    return [
        [replace(word, fold=singular[word.fold]) if word.capital and word.fold in singular else word for word in words]
        for words in documents
    ]


def _flag_names(documents: Sequence[Words], min_count: int) -> Iterator[list[bool]]:
    """For every word of every document whether it is part of a name."""
    capital, lower = Counter[str](), Counter[str]()
    capital_pairs, lower_pairs = Counter[Key](), Counter[Key]()
    for words in documents:
        for previous, word in zip([None, *words], words, strict=False):
            if word.opens or word.shouted:
                continue
            (capital if word.capital else lower)[word.fold] += 1
            if previous and word.joined and not (previous.opens or previous.shouted or previous.possessive):
                pairs = capital_pairs if previous.capital and word.capital else lower_pairs
                pairs[previous.fold, word.fold] += 1
    unnamed = FUNCTION_WORDS | NOT_ALONE
    names = {fold for fold, count in capital.items() if count > lower[fold] and fold not in unnamed}
    paired = {
        pair
        for pair, count in capital_pairs.items()
        if count >= min_count and count > lower_pairs[pair] and _may_pair(*pair)
    }
    for words in documents:
        flags = [word.capital and not word.shouted and word.fold in names for word in words]
        for at, (first, second) in enumerate(pairwise(words)):
            if not (first.capital and second.capital and second.joined):
                continue
            if (first.fold, second.fold) in paired:
                flags[at] = flags[at + 1] = True
            elif first.fold in TITLES and not second.shouted and second.fold not in unnamed:
                flags[at + 1] = True
        yield flags


def _may_pair(first: str, second: str) -> bool:
    return not FUNCTION_WORDS & {first, second} and first not in TITLES and not {first, second} <= NOT_ALONE


def single_entries(documents: Sequence[Words], runs: Sequence[Sequence[Name]], min_count: int) -> set[Key]:
    """The words used outside their most frequent longer name too (nested terms: Frantzi, Ananiadou & Mima 2000).

    Once is enough for a word that is never in lower case ("Adler" of "Irene Adler"), otherwise `min_count` times; and a
    word like "Cape" must stand alone mostly.
    """
    inside = [word for words in documents for word in words if not word.opens]
    lower = Counter(word.fold for word in inside if not word.capital)
    capital = Counter(word.fold for word in inside if word.capital)
    whole = _count_runs(documents, runs)
    mentions, longest = Counter[str](), dict[str, Key]()
    for key, count in whole.items():
        for fold in set(key) - LINKERS:
            mentions[fold] += count
            if len(key) > 1 and count >= max(min_count, whole[longest.get(fold, ())]):
                longest[fold] = key

    def stands_alone(fold: str, count: int) -> bool:
        longer = longest.get(fold, ())
        if fold in PLACE_NOUNS:
            return 2 * whole[fold,] >= count
        never_common = not lower[fold] and longer[-1:] and longer[-1] not in CREATURES | PLACE_NOUNS
        return count - whole[longer] >= (1 if never_common else min_count)

    return {
        (fold,)
        for fold, count in mentions.items()
        if count >= min_count and capital[fold] > lower[fold] and fold not in NOT_ALONE and len(fold) > 1
        if stands_alone(fold, count)
    }


def longer_entries(
    documents: Sequence[Words], runs: Sequence[Sequence[Name]], min_count: int, singles: set[Key]
) -> set[Key]:
    """The names of several words that single entries do not make up: "Cheshire Cat" if the cat is never called
    Cheshire, but not "Elizabeth Bennet"."""
    entries = set(singles)
    whole = _count_runs(documents, runs)
    for key in sorted((key for key, count in whole.items() if len(key) > 1 and count >= min_count), key=len):
        if max(map(len, key)) > 1 and not _made_up(key, entries):
            entries.add(key)
    return entries - singles


def _count_runs(documents: Sequence[Words], runs: Sequence[Sequence[Name]]) -> Counter[Key]:
    return Counter(key_of(words, run) for words, names in zip(documents, runs, strict=True) for run in names)


def _made_up(key: Key, entries: set[Key]) -> bool:
    """Whether shorter entries, and words like "of" and "House" that need no counterpart, make up the whole name."""
    covered = [False] * len(key)
    for first in range(len(key)):
        for last in range(first + 1, len(key) + 1):
            if last - first < len(key) and key[first:last] in entries:
                covered[first:last] = [True] * (last - first)
    plain = LINKERS | PLACE_NOUNS | SAINT
    return any(covered) and all(done or fold in plain for done, fold in zip(covered, key, strict=True))
