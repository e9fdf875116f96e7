"""Prompts made from the documents themselves, for forget sets that nobody has written prompts for.

The paper's prompts were written by an LLM so as to give little away. Here a prompt is a piece of a document, from the
start of a sentence to just before an anchor, in which that anchor is not given and few others are: a model that knows
the documents goes on with the anchor, a model that does not has little to go by.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.judge import given_anchors

MIN_CHARS, MAX_CHARS = 60, 320
MAX_NAMED = 1
VERBATIM_CHARS = 240
REFERENCE_CHARS = 240

SENTENCE_START = re.compile(
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)[.!?…][\"'”’»)\]_]*\s+|(?<=[。！？])|\n\s*\n\s*"
)


@dataclass(frozen=True)
class Prompt:
    """`text` is given to the model and ends on no space; `references` are what shows that the model knows the document:
    how that goes on, or what the prompt's author wrote down. kind: of the anchor that follows; subtlety: from 1, which
    gives much away, to 10; both where they are known.
    """

    document: str
    text: str
    references: tuple[str, ...]
    kind: str = ""
    subtlety: int | None = None


def anchor_prompts(documents: Mapping[str, str], dictionary: AnchorDictionary, count: int, seed: int) -> list[Prompt]:
    """At most `count` prompts that each end just before an anchor that they do not give away.

    They are spread evenly over all places where such a prompt can be cut, in document order; within each stretch the
    anchor that was used least so far is preferred, since otherwise the protagonist is all that is asked for. Line
    breaks inside become spaces. Fewer than `count` come back when the documents hold fewer.
    """
    candidates = [
        (name, start, end, anchor)
        for name, text in documents.items()
        for start, end, anchor in _anchor_places(text, dictionary)
    ]
    rng = np.random.default_rng(seed)
    used: Counter[int] = Counter()
    prompts: dict[str, Prompt] = {}
    for stretch in _stretches(len(candidates), count):
        for place in sorted(rng.permutation(stretch), key=lambda place: used[candidates[place][3]]):
            name, start, end, anchor = candidates[place]
            prompt = _one_line(documents[name][start:end])
            if prompt not in prompts and anchor not in given_anchors(prompt, dictionary):
                used[anchor] += 1
                reference = _one_line(documents[name][end : end + REFERENCE_CHARS])
                prompts[prompt] = Prompt(name, prompt, (reference,), dictionary.anchors[anchor].kind)
                break
    return list(prompts.values())


def verbatim_prompts(documents: Mapping[str, str], count: int, seed: int) -> list[Prompt]:
    """At most `count` passages from a sentence start, with the text exactly as it stands, spread evenly."""
    candidates = [
        (name, start)
        for name, text in documents.items()
        for start in _sentence_starts(text)
        if start + VERBATIM_CHARS + REFERENCE_CHARS <= len(text)
    ]
    rng = np.random.default_rng(seed)
    prompts = []
    for stretch in _stretches(len(candidates), count):
        name, start = candidates[rng.choice(stretch)]
        text = documents[name]
        end = _last_space(text, start, start + VERBATIM_CHARS)
        prompts.append(Prompt(name, text[start:end], (text[end : end + REFERENCE_CHARS],)))
    return prompts


def sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line."""
    starts = [*_sentence_starts(text), len(text)]
    return [one for start, end in pairwise(starts) if (one := _one_line(text[start:end]))]


def _anchor_places(text: str, dictionary: AnchorDictionary) -> list[tuple[int, int, int]]:
    """Where prompts can be cut: (start, end, anchor that follows), few anchors inside and a bearable length."""
    spans = dictionary.spans(text)
    starts = np.array(_sentence_starts(text))
    span_starts = np.array([span.start for span in spans])
    places = []
    for index, span in enumerate(spans):
        sentence = np.searchsorted(starts, span.start - MIN_CHARS, side="right") - 1
        if sentence < 0 or span.start - starts[sentence] > MAX_CHARS:
            continue
        if index - np.searchsorted(span_starts, starts[sentence]) <= MAX_NAMED:
            places.append((int(starts[sentence]), span.start, span.anchor))
    return places


def _sentence_starts(text: str) -> list[int]:
    ends = {0, *(match.end() for match in SENTENCE_START.finditer(text))} - {len(text)}
    # "'Why?' said Alice": a full stop inside quotes ends no sentence when a small letter follows.
    return sorted(place for place in ends if not text[place].islower())


def _stretches(places: int, count: int) -> list[np.ndarray]:
    return np.array_split(np.arange(places), min(count, places)) if places and count else []


def _last_space(text: str, start: int, end: int) -> int:
    """`end`, or the last white space before it: a passage does not end within a word (nor on the space itself)."""
    match = re.search(r"\s+\S*$", text[start:end])
    return start + match.start() if match and match.start() else end


def _one_line(text: str) -> str:
    return " ".join(text.split())
