"""Passages of the documents, drawn evenly: what a language model reads to propose anchor terms."""

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_GOLDEN = (math.sqrt(5) - 1) / 2
# Where a passage may end: after a sentence with its closing quotes, or between paragraphs.
_SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|\n\s*\n\s*")


@dataclass(frozen=True)
class Passage:
    """text is documents[document][start:end]."""

    document: str
    start: int
    end: int
    text: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.start}-{self.end}"


def draw_passages(documents: Mapping[str, str], *, count: int, characters: int, seed: int) -> list[Passage]:
    """At most `count` passages of about `characters` characters, ending with a sentence where one ends.

    The documents, in order of their names, are cut into such passages, and these are taken at the places of the golden
    ratio's sequence, which covers a line evenly however far it goes: so a larger count adds to the passages of a
    smaller one.
    """
    every = [passage for name, text in sorted(documents.items()) for passage in _cut(name, text, characters)]
    chosen = _evenly(len(every), min(count, len(every)), float(np.random.default_rng(seed).random()))
    return [every[index] for index in chosen]


def _cut(name: str, text: str, characters: int) -> list[Passage]:
    ends = [end.end() for end in _SENTENCE.finditer(text)]
    passages, start = [], 0
    while start < len(text):
        wanted = start + characters
        at = bisect_left(ends, wanted)
        end = ends[at] if at < len(ends) and ends[at] <= wanted + characters else min(wanted, len(text))
        if len(text) - end < characters // 2:
            end = len(text)
        if text[start:end].strip():
            passages.append(Passage(name, start, end, text[start:end]))
        start = end
    return passages


def _evenly(size: int, count: int, offset: float) -> list[int]:
    """`count` different numbers below `size`; where one is taken, the next free one stands in."""
    chosen: dict[int, None] = {}
    for step in range(count):
        index = int((offset + step * _GOLDEN) % 1 * size)
        while index in chosen:
            index = (index + 1) % size
        chosen[index] = None
    return list(chosen)
