"""Which position of a block stands for which position of its translation (METHOD.md, "Alignment").

Position t is the model's output after tokens 0..t. Guessing the counterpart from token counts or from the decoded
words fails as soon as the two tokenisations cut the text differently, and a label from a neighbouring position is a
wrong label. Both tokenisations know the characters they end at, so the definition can be computed as it is written.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unlearn_ray.method.translation import Translation

ALIGNED, INSIDE_ANCHOR, CUT_DIFFERENTLY, INSIDE_CHARACTER = 0, 1, 2, 3


@dataclass(frozen=True)
class Alignment:
    """targets_T: int32, the translated position u of each t, or -1. reasons_T: int8, ALIGNED or why t has no u."""

    targets_T: np.ndarray
    reasons_T: np.ndarray


@dataclass(frozen=True)
class Occurrence:
    """An anchor in a block: its first and last token, and whether it ends in the block (Segment.whole)."""

    anchor: int
    first: int
    last: int
    whole: bool


def align(
    starts_T: ArrayLike,
    ends_T: ArrayLike,
    translation: Translation,
    translated_starts_U: ArrayLike,
    translated_ends_U: ArrayLike,
) -> Alignment:
    """Align t to u exactly when translated(text[:end_t]) == translated_text[:end_u] and end_t is not strictly inside
    an anchor.

    Starts and ends are the tokens' character offsets in the block's text and in the translated text, ascending. Both
    sides of the equation are prefixes of the translated text, so they are equal when they are equally long. A
    position whose next token begins before its own end stands inside a character (byte-level tokens) and on neither
    side has a text. Where tokens without characters leave several positions at one place, they pair in order if both
    sides have equally many, and the last ones pair otherwise: these have seen all the others.
    """
    ends_T, ends_U = np.asarray(ends_T), np.asarray(translated_ends_U)
    places_T, inside_anchor_T = _places_in_translation(ends_T, translation)
    inside_character_T = _inside_character(np.asarray(starts_T), ends_T)
    reasons_T = np.full(len(ends_T), CUT_DIFFERENTLY, dtype=np.int8)
    reasons_T[inside_character_T] = INSIDE_CHARACTER
    reasons_T[inside_anchor_T] = INSIDE_ANCHOR

    ts = np.flatnonzero(~inside_anchor_T & ~inside_character_T)
    us = np.flatnonzero(~_inside_character(np.asarray(translated_starts_U), ends_U))
    places, places_U = places_T[ts], ends_U[us]
    last_t = np.searchsorted(places, places, side="right") - 1
    count_t = last_t - np.searchsorted(places, places, side="left") + 1
    last_u = np.searchsorted(places_U, places, side="right") - 1
    count_u = last_u - np.searchsorted(places_U, places, side="left") + 1
    steps_to_last = last_t - np.arange(len(ts))
    paired = (count_u > 0) & ((count_t == count_u) | (steps_to_last == 0))

    targets_T = np.full(len(ends_T), -1, dtype=np.int32)
    targets_T[ts[paired]] = us[(last_u - steps_to_last)[paired]]
    reasons_T[ts[paired]] = ALIGNED
    return Alignment(targets_T, reasons_T)


def occurrences(starts_T: ArrayLike, ends_T: ArrayLike, translation: Translation) -> list[Occurrence]:
    """The anchors of a block as tokens, in text order: from the token that covers the first character to the last one
    that covers the last. An anchor that no token covers (a tokenizer may remove characters) has none.
    """
    firsts = np.searchsorted(np.asarray(ends_T), [segment.start for segment in translation.segments], side="right")
    lasts = np.searchsorted(np.asarray(starts_T), [segment.end for segment in translation.segments], side="left") - 1
    return [
        Occurrence(segment.anchor, int(first), int(last), segment.whole)
        for segment, first, last in zip(translation.segments, firsts, lasts, strict=True)
        if first <= last
    ]


def _places_in_translation(ends_T: np.ndarray, translation: Translation) -> tuple[np.ndarray, np.ndarray]:
    """Where text[:end_t] ends in the translated text, and whether end_t is strictly inside an anchor (the place is
    then void).
    """
    segments = translation.segments
    if not segments:
        return ends_T, np.zeros(len(ends_T), dtype=bool)
    ends_S = np.array([segment.end for segment in segments])
    out_ends_S = np.array([segment.out_end for segment in segments])
    # An anchor that the block cuts off has not ended at its last character here.
    inside_until_S = np.array([segment.end if segment.whole else segment.end + 1 for segment in segments])
    latest_T = np.searchsorted([segment.start for segment in segments], ends_T, side="left") - 1
    after_any_T = latest_T >= 0
    places_T = ends_T + np.where(after_any_T, (out_ends_S - ends_S)[latest_T], 0)
    return places_T, after_any_T & (ends_T < inside_until_S[latest_T])


def _inside_character(starts_T: np.ndarray, ends_T: np.ndarray) -> np.ndarray:
    return np.append(starts_T[1:] < ends_T[:-1], np.zeros(min(len(ends_T), 1), dtype=bool))
