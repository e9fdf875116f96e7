"""Words of a text with what their capitals can tell, and the names that runs of them form.

A capital is evidence of a name only where a sentence cannot begin, so every word knows whether one may begin at it:
after a full stop, at a quotation mark, after a dash, in a heading, in a line of verse. There a capital says
nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from unlearn_ray.method.lexicon import ABBREVIATIONS, LINKERS, TITLES

WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")
CLITIC = re.compile(r"(?<=\w)['’](?:s|ll|d|ve|re|m)$", re.IGNORECASE)
BREAK = re.compile(r"[.!?:…\"“”‘«»()\[\]*]|--|—|–|\n\s*\n|\n[ \t]+|(?<!\w)'|'(?=\s)")
PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:\n[ \t]*\S.*)*")
SMALL_IN_HEADINGS = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "of", "on", "or", "the", "to", "upon", "with"]
)
# a gap between two words of one name: white space, after a full stop only where the word before is an abbreviation
NAME_GAP = re.compile(r"[ \t]+|[ \t]*\n[ \t]*")


@dataclass(frozen=True, slots=True)
class Word:
    """One word; `text` is without a possessive or contracted ending, `joined` says that nothing but space stands
    before it."""

    text: str
    fold: str
    start: int
    opens: bool
    joined: bool
    possessive: bool

    @property
    def capital(self) -> bool:
        return self.text[0].isupper()

    @property
    def shouted(self) -> bool:
        return len(self.text) > 1 and self.text.isupper()


@dataclass(frozen=True, slots=True)
class Name:
    """A run of capitalised words, `first` to `last` (excluded) in the words of its text, its titles left out."""

    first: int
    last: int
    title: str | None


def read_words(text: str) -> list[Word]:
    """The words of a text in order, headings left out (their capitals are typography)."""
    words: list[Word] = []
    for paragraph in PARAGRAPH.finditer(text):
        if not _is_heading(paragraph.group()):
            words.extend(_paragraph_words(text, paragraph.start(), paragraph.end()))
    return words


def _paragraph_words(text: str, begin: int, end: int) -> Iterator[Word]:
    last_end, previous = begin, None
    for match in WORD.finditer(text, begin, end):
        gap = text[last_end : match.start()].replace("_", "")
        abbreviated = previous is not None and (previous.fold in ABBREVIATIONS or len(previous.text) == 1)
        if abbreviated and previous is not None and previous.text != "I":
            gap = gap.removeprefix(".")
        full = match.group()
        bare = CLITIC.sub("", full)
        previous = Word(
            text=bare,
            fold=bare.casefold().replace("’", "'"),
            start=match.start(),
            opens=previous is None or BREAK.search(gap) is not None,
            joined=previous is not None and NAME_GAP.fullmatch(gap) is not None,
            possessive=len(full) - len(bare) == 2 and full[-1] in "sS",
        )
        last_end = match.end()
        yield previous


def _is_heading(paragraph: str) -> bool:
    """A paragraph all in capitals or, on one line, with every longer word capitalised ("CHAPTER I. Down the
    Rabbit-Hole")."""
    words = WORD.findall(paragraph)
    if not words or len(words) > 30:
        return False
    if words[0].casefold() in ("chapter", "volume", "book", "part", "letter", "adventure") and "\n" not in paragraph:
        return True
    shouted = sum(word.isupper() for word in words)
    if shouted >= 0.7 * len(words) and len(words) > 1:
        return True
    quoted = paragraph[0] in "\"'“‘" or paragraph[-1] in "\"'”’!?,;:-"
    titled = words[0][0].isupper() and all(word[0].isupper() or word in SMALL_IN_HEADINGS for word in words)
    return "\n" not in paragraph and not quoted and len(words) > 1 and titled


def find_names(words: list[Word], named: list[bool]) -> Iterator[Name]:
    """Longest runs of words that are `named` (one flag a word), in order.

    A run may pass over linkers ("Queen of Hearts", "Catherine de Bourgh") and begins after its titles ("Mr. Darcy" is a
    mention of Darcy with the title "mr"), except where "of" follows the title ("Queen of Hearts", "Duke of Exmoor").
    """
    at = 0
    while at < len(words):
        if not named[at] and not _is_title(words[at]):
            at += 1
            continue
        end = at + 1
        while end < len(words) and words[end].joined and not words[end - 1].possessive:
            if named[end]:
                end += 1
            elif words[end].text in LINKERS and _named_next(words, named, end):
                end += 2
            else:
                break
        yield from _without_titles(words, named, at, end)
        at = end


def _is_title(word: Word) -> bool:
    return word.capital and word.fold in TITLES


def _named_next(words: list[Word], named: list[bool], at: int) -> bool:
    """Whether the lower-case linker at `at` joins what stands before it to a name after it."""
    return at + 1 < len(words) and words[at + 1].joined and not words[at].possessive and named[at + 1]


def _without_titles(words: list[Word], named: list[bool], first: int, last: int) -> Iterator[Name]:
    title = None
    while last - first > 1 and _is_title(words[first]) and words[first + 1].text != "of":
        title = words[first].fold
        first += 1
        while last - first > 1 and words[first].text in LINKERS:
            first += 1
    if named[first]:
        yield Name(first, last, title)
