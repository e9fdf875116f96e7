"""What `anchors check` says about a dictionary before hours of work rest on it.

Real dictionaries made by an LLM have conflicts, chains, names that are only part of a name, and many ordinary words
that would be penalised everywhere (METHOD.md, "What goes wrong in real dictionaries"). Errors make a dictionary
unusable; warnings are likely mistakes; the rest are figures to judge it by.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import regex
from wordfreq import zipf_frequency

from unlearn_ray.method.dictionary import Anchor, AnchorDictionary, find_faults
from unlearn_ray.method.matching import Span, plain

# Zipf 3.4 is 2.5 uses in a million words: "wand" (3.5) and "kitchen" (4.7) are above it, "quidditch" (2.7) is not.
ORDINARY_ZIPF = 3.4
_SHOWN = 20
_WORD = regex.compile(r"[\p{L}\p{N}\p{M}]+(?:['’-][\p{L}\p{N}\p{M}]+)*")
_SENTENCE_END = regex.compile(r"[.!?]+[\"'”’)]*\s+|\n\s*\n\s*")
# After a small word and a space, a capital is the word's own and not the sentence's.
_CAPITALISED = regex.compile(r"(?<=\p{Ll}[,;]?\s)\p{Lu}[\p{L}\p{M}]+")


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dictionary: how grave, what, in a sentence, and the entries or words it is about."""

    level: Literal["error", "warning", "info"]
    name: str
    message: str
    examples: tuple[str, ...] = ()


def check(entries: Sequence[Anchor], texts: Sequence[str]) -> list[Finding]:
    """Findings about the raw `entries` of a dictionary for the forget set `texts`, errors first.

    What concerns the texts can be said only of a dictionary without errors.
    """
    errors = [
        Finding("error", fault.name, f"{len(fault.entries)} entries: {fault.reason}", fault.entries)
        for fault in find_faults(entries)
    ]
    if not entries:
        errors = [Finding("error", "no entries", "the dictionary has no entries")]
    found = [_ordinary_words(entries), _shared_translations(entries), _prefixes(entries), _single_passages(entries)]
    if not errors:
        found += _about_texts(AnchorDictionary(entries), texts)
    return errors + [finding for finding in found if finding.examples or finding.name == "coverage"]


def _about_texts(dictionary: AnchorDictionary, texts: Sequence[str]) -> list[Finding]:
    spans = [dictionary.spans(text) for text in texts]
    return [*_usage(dictionary, spans), _uncovered(texts, spans), _coverage(texts, spans)]


def _ordinary_words(entries: Sequence[Anchor]) -> Finding:
    """Only lower-case anchors, since frequency lists do not tell "Rose" from "rose", and only single words: what a word
    is worth in an expression they do not know."""
    ordinary = [
        entry.anchor
        for entry in entries
        if entry.anchor.islower() and " " not in entry.anchor and zipf_frequency(entry.anchor, "en") >= ORDINARY_ZIPF
    ]
    message = f"{len(ordinary)} anchors are ordinary English words: all text that uses them would be changed"
    return Finding("warning", "ordinary words", message, tuple(ordinary))


def _shared_translations(entries: Sequence[Anchor]) -> Finding:
    anchors: dict[str, list[str]] = {}
    for entry in entries:
        anchors.setdefault(plain(entry.generic).casefold(), []).append(entry.anchor)
    shared = tuple(f"{generic} <- {' | '.join(of)}" for generic, of in anchors.items() if len(of) > 1)
    message = f"{len(shared)} translations stand for several anchors: the text cannot tell them apart"
    return Finding("warning", "shared translations", message, shared)


def _single_passages(entries: Sequence[Anchor]) -> Finding:
    single = tuple(entry.anchor for entry in entries if entry.support == 1)
    return Finding("info", "single passage", f"{len(single)} entries were seen in one passage only", single)


def _prefixes(entries: Sequence[Anchor]) -> Finding:
    anchors = {plain(entry.anchor) for entry in entries}
    longer = [
        f"{anchor[:gap]} < {anchor}"
        for anchor in sorted(anchors)
        for gap, character in enumerate(anchor)
        if character == " " and anchor[:gap] in anchors
    ]
    message = f"{len(longer)} anchors begin another one: the longest that fits is taken"
    return Finding("info", "prefixes", message, tuple(longer))


def _usage(dictionary: AnchorDictionary, spans: Sequence[Sequence[Span]]) -> list[Finding]:
    uses = Counter(span.anchor for found in spans for span in found)
    unused = tuple(entry.anchor for index, entry in enumerate(dictionary.anchors) if not uses[index])
    once = tuple(entry.anchor for index, entry in enumerate(dictionary.anchors) if uses[index] == 1)
    return [
        Finding("warning", "unused", f"{len(unused)} anchors never occur in the documents", unused),
        Finding("info", "single occurrence", f"{len(once)} anchors occur only once", once),
    ]


def _coverage(texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> Finding:
    words = anchor_words = sentences = anchor_sentences = 0
    for text, found in zip(texts, spans, strict=True):
        words += _count_words(text)
        anchor_words += sum(_count_words(text[span.start : span.end]) for span in found)
        starts = [start for start in (0, *(end.end() for end in _SENTENCE_END.finditer(text))) if start < len(text)]
        sentences += len(starts)
        anchor_sentences += len({bisect_right(starts, span.start) for span in found})
    message = (
        f"anchors make {anchor_words / max(words, 1):.1%} of {words} words "
        f"and are in {anchor_sentences / max(sentences, 1):.1%} of {sentences} sentences"
    )
    return Finding("info", "coverage", message)


def _uncovered(texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> Finding:
    """Names the dictionary lacks: capitalised within a sentence, in no anchor, and seldom without the capital."""
    seen: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for text, found in zip(texts, spans, strict=True):
        starts = [span.start for span in found]
        written.update(_WORD.findall(text))
        for word in _CAPITALISED.finditer(text):
            latest = bisect_right(starts, word.start()) - 1
            if latest < 0 or found[latest].end <= word.start():
                seen[word.group()] += 1
    names = [(word, count) for word, count in seen.most_common() if count > written[word.lower()]]
    message = f"{len(names)} capitalised words within sentences are in no anchor; the most frequent are shown"
    return Finding(
        "info", "not in the dictionary", message, tuple(f"{word} ({count})" for word, count in names[:_SHOWN])
    )


def _count_words(text: str) -> int:
    return len(_WORD.findall(text))
