"""Consistency inside a block: what changes once an anchor term has occurred (METHOD.md, "Consistency").

Replacing "Harry" by "Jon" everywhere would teach "Harry went up to him and said, 'Hi, my name is Jon'". `paper` does
not train the start of repeated anchors and forbids the translation; `restore` (Liu et al. 2024) gives the
translation's probability back to the anchor, so that repeats stay trained.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from unlearn_ray.method.alignment import Occurrence
from unlearn_ray.method.labels import Substitutions

MODES = ("restore", "paper")
# What may stand before a word: nothing, a space, a line break, and an opening quote, after which SentencePiece
# tokenizers give a word another first token than at the start of a text.
PRECEDING = ("", " ", "\n", '"')


def first_tokens(tokenizer: PreTrainedTokenizerFast, word: str) -> tuple[int, ...]:
    """The id of the token that begins `word`, for each text in PRECEDING: the token that covers its first character."""
    ids = []
    for before in PRECEDING:
        encoded = tokenizer(before + word, add_special_tokens=False, return_offsets_mapping=True)
        ids.append(
            next(
                i
                for i, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
                if end > len(before)
            )
        )
    return tuple(ids)


def first_token_forms(tokenizer: PreTrainedTokenizerFast, anchor: str, generic: str) -> tuple[tuple[int, int], ...]:
    """The distinct pairs (first token of the generic translation, first token of the anchor), form by form."""
    pairs = zip(first_tokens(tokenizer, generic), first_tokens(tokenizer, anchor), strict=True)
    return tuple(sorted({pair for pair in pairs if pair[0] != pair[1]}))


def repeat_starts(occurrences: Sequence[Occurrence]) -> list[int]:
    """Positions whose next token begins a second or later occurrence of an anchor: `paper` does not train them."""
    seen: set[int] = set()
    starts = []
    for occurrence in occurrences:
        if occurrence.anchor in seen and occurrence.first > 0:
            starts.append(occurrence.first - 1)
        seen.add(occurrence.anchor)
    return starts


def substitutions(
    occurrences: Sequence[Occurrence],
    positions_P: np.ndarray,
    forms: Mapping[int, Sequence[tuple[int, int]]],
    mode: str,
) -> Substitutions:
    """The changes to v_baseline at the trained positions of one block.

    positions_P: the block's trained positions, ascending; row r of the result stands for positions_P[r]. An anchor has
    occurred from the last token of its first occurrence on. forms: anchor -> first_token_forms.
    """
    first_seen: dict[int, int] = {}
    for occurrence in occurrences:
        first_seen.setdefault(occurrence.anchor, occurrence.last)
    rows, generics, anchors = [], [], []
    for anchor, since in first_seen.items():
        after = np.arange(np.searchsorted(positions_P, since), len(positions_P))
        for generic_id, anchor_id in forms[anchor]:
            rows.append(after)
            generics.append(np.full(len(after), generic_id))
            anchors.append(np.full(len(after), anchor_id if mode == "restore" else -1))
    return _substitutions(rows, generics, anchors)


def continuations(
    occurrences: Sequence[Occurrence], positions_P: np.ndarray, input_ids_T: Sequence[int]
) -> Substitutions:
    """What forbids the tokens that continue an anchor inside its first occurrence: positions_P as above."""
    rows, tokens, seen = [], [], set()
    for occurrence in occurrences:
        if occurrence.anchor not in seen:
            inside_I = np.intersect1d(np.arange(occurrence.first, occurrence.last), positions_P)
            rows.append(np.searchsorted(positions_P, inside_I))
            tokens.append(np.asarray(input_ids_T)[inside_I + 1])
        seen.add(occurrence.anchor)
    return _substitutions(rows, tokens, [np.full(len(part), -1) for part in rows])


def merged(*changes: Substitutions) -> Substitutions:
    """All of these changes as one."""
    parts = zip(*((change.rows_N, change.generic_ids_N, change.anchor_ids_N) for change in changes), strict=True)
    return _substitutions(*parts)


def named_tokens(
    occurrences: Sequence[Occurrence],
    positions_P: np.ndarray,
    input_ids_T: Sequence[int],
    tokens_of: Sequence[set[int]],
    beginnings: set[int],
) -> dict[int, int]:
    """The tokens that can begin an anchor which the block names -> the row of positions_P from which it has.

    tokens_of: anchor -> the tokens it can begin with; beginnings: all of these. An occurrence also names the tokens
    that it is written in: "White Rabbit" names "Rabbit".
    """
    named: dict[int, int] = {}
    for occurrence in occurrences:
        written = beginnings.intersection(input_ids_T[occurrence.first : occurrence.last + 1])
        for token in tokens_of[occurrence.anchor] | written:
            named.setdefault(token, int(np.searchsorted(positions_P, occurrence.last)))
    return named


def _substitutions(*parts: Sequence[np.ndarray]) -> Substitutions:
    if not parts[0]:
        return Substitutions(*(np.zeros(0, np.int64) for _ in range(3)))
    order = np.argsort(np.concatenate(parts[0]), kind="stable")
    return Substitutions(*(np.concatenate(part)[order] for part in parts))
