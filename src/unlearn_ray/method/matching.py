"""Where anchor terms stand in a text.

Plain substring search finds "Ron" in "iron", "Harry" but not "HARRY", and "White Rabbit" only where no line breaks
between the words; the first entry in the dictionary would beat the longest. So every form an anchor can take is put
in one automaton, which reads the text once whatever the number of anchors, and every hit is then asked whether it
stands as words of its own.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat

import ahocorasick
import regex

# Scripts written without spaces: a word may begin and end anywhere. The long-vowel mark belongs to no script.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]"
_WORD = r"[\p{L}\p{N}\p{M}]"
_CAPITAL = r"[\p{Lu}\p{Lt}]"

# A hyphen joins to a part that begins with a capital: "Anne" is no word in "Mary-Anne", "Gryffindor" is one in
# "half-Gryffindor".
_BEGINS = regex.compile(
    rf"""(?: (?={_UNSPACED}) | (?<!{_WORD}) | (?<={_UNSPACED}\p{{M}}*) )
         (?<! \p{{L}}\p{{M}}*' )
         (?<! (?<!{_WORD}) {_CAPITAL} (?:{_WORD}|')* - )""",
    regex.VERBOSE,
)
# The suffixes are those that English hangs on a name with an apostrophe: Alice's, Dinah'll, she'd.
_ENDS = regex.compile(
    rf"""(?! \p{{M}} )
         (?: (?<={_UNSPACED}\p{{M}}*) | (?!{_WORD}) | (?={_UNSPACED}) )
         (?! ' (?! (?i:s|d|m|ll|re|ve) (?!{_WORD}) ) \p{{L}} )
         (?! -{_CAPITAL} )""",
    regex.VERBOSE,
)
_GAP = re.compile(r"\s+")
_GAP_BUT_ONE_SPACE = re.compile(r"\s{2,}|[^\S ]")


@dataclass(frozen=True)
class Span:
    """An anchor found in a text: text[start:end] is anchor number `anchor`; `replacement` stands in for it, in its
    case.
    """

    start: int
    end: int
    anchor: int
    replacement: str


class Matcher:
    """Finds anchors leftmost-longest, as whole words, in the case, number and line breaks that running text gives them.

    entries: (anchor, generic translation), neither empty; a span's `anchor` is an index into them. Where two entries
    share a form, the one that is written so wins over the one that is only raised, pluralised or in capitals.
    """

    def __init__(self, entries: Sequence[tuple[str, str]]):
        self._automaton = ahocorasick.Automaton()
        for case in (str, _raised, str.upper):
            for numbers in (lambda word: [word], _plurals):
                for index, (anchor, generic) in enumerate(entries):
                    replacement = case(numbers(generic)[0])
                    for form in numbers(plain(anchor)):
                        self._add(case(form), index, replacement)
        self._automaton.make_automaton()

    def _add(self, form: str, index: int, replacement: str) -> None:
        for spelling in (form, unicodedata.normalize("NFC", form), unicodedata.normalize("NFD", form)):
            if spelling not in self._automaton:
                self._automaton.add_word(spelling, (len(spelling), index, replacement))

    def spans(self, text: str) -> list[Span]:
        """The anchors in `text`, in order, none overlapping another."""
        flat, position = _flatten(text)
        found: list[Span] = []
        for start, end, index, replacement in _leftmost_longest(self._hits(flat)):
            start, end = position(start), position(end)
            found.append(Span(start, end, index, _with_gaps_of(text[start:end], replacement)))
        return found

    def _hits(self, flat: str) -> list[tuple[int, int, int, str]]:
        hits = []
        for last, (length, index, replacement) in self._automaton.iter(flat):
            start, end = last + 1 - length, last + 1
            if _BEGINS.match(flat, start) and _ENDS.match(flat, end):
                hits.append((start, end, index, replacement))
        return hits


def plain(text: str) -> str:
    """`text` with one kind of apostrophe, hyphen and space, so that an anchor is one string however it is typed."""
    return _GAP.sub(" ", _plain_marks(text).strip())


def _plain_marks(text: str) -> str:
    return text.replace("’", "'").replace("\u2010", "-").replace("\u2011", "-")


def _flatten(text: str) -> tuple[str, Callable[[int], int]]:
    """`text` with every run of whitespace as one space, and the way back from a position in it to one in `text`."""
    flat = _GAP_BUT_ONE_SPACE.sub(" ", _plain_marks(text))
    runs = [gap.span() for gap in _GAP_BUT_ONE_SPACE.finditer(text) if gap.end() - gap.start() > 1]
    removed = [0, *accumulate(end - start - 1 for start, end in runs)]
    flat_starts = [start - before for (start, _), before in zip(runs, removed, strict=False)]
    return flat, lambda index: index + removed[bisect_left(flat_starts, index)]


def _leftmost_longest(hits: list[tuple[int, int, int, str]]) -> Iterator[tuple[int, int, int, str]]:
    free_from = 0
    for hit in sorted(hits, key=lambda hit: (hit[0], -hit[1])):
        if hit[0] >= free_from:
            yield hit
            free_from = hit[1]


def _with_gaps_of(source: str, replacement: str) -> str:
    """`replacement` with the line breaks and wide spaces that `source` has between its words, first gap to first
    gap.
    """
    gaps = _GAP.findall(source)
    if all(gap == " " for gap in gaps):
        return replacement
    words = replacement.split(" ")
    return "".join(chain.from_iterable(zip(words, chain(gaps, repeat(" ")), strict=False))).rstrip()


def _raised(text: str) -> str:
    return text[:1].title() + text[1:]


def _plurals(text: str) -> list[str]:
    """The regular English plurals of the last word, the usual one first: "Harry" may be "Harrys" or "Harries"."""
    if not text[-1:].isalpha():
        return [text]
    if text.endswith(("s", "x", "z", "ch", "sh")):
        return [text + "es"]
    if text.endswith("y") and text[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return [text + "s", text[:-1] + "ies"] if text.split()[-1][:1].isupper() else [text[:-1] + "ies"]
    return [text + "s"]
