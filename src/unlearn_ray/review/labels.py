"""The project "label fluency": labels that the baseline itself finds improbable, and what else it might have said."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from unlearn_ray.method.blocks import first_token
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.review.tasks import Task, escaped, make_task, page, text_before

FLUENCIES = ("fluent", "leaks", "broken")
CONTEXT = 320  # characters on the left
ALTERNATIVES = 5
SURE = 0.9  # from which probability on a label that is the text's own word is taken for fluent
TWICE = ("the", "of", "and", "to")  # words that nobody writes twice in a row


_REST = re.compile(r"\w+")


@dataclass(frozen=True)
class Place:
    """A labelled position. token: the document's own there, previous: the one before it; probability: the baseline's,
    of the label; alternatives: ids, likeliest first."""

    block_id: int
    position: int
    label: int
    probability: float
    token: int
    previous: int
    alternatives: Sequence[int]


def doubtful_places(tables: Iterable[pa.Table], column: str, *, below: float, count: int) -> list[Place]:
    """The least probable labels, in that order. Only what is taken leaves Arrow: soft labels are large."""
    found: list[Place] = []
    for table in tables:
        flat = _Flat(table, column)
        at_N = np.flatnonzero(flat.labelled_N & (flat.probability_N < below))
        ordered_N = at_N[np.argsort(flat.probability_N[at_N], kind="stable")][:count]
        found += [flat.place(at) for at in ordered_N]
    return sorted(found, key=lambda one: (one.probability, one.block_id, one.position))[:count]


def gold_places(
    table: pa.Table, column: str, tokenizer: PreTrainedTokenizerFast, count: int
) -> list[tuple[Place, int, str]]:
    """Places with a label whose fluency is known: the text's own word where the baseline is sure of it, and a little
    word that stands there already."""
    flat = _Flat(table, column)
    little = [first_token(tokenizer, word) for word in TWICE]
    twice_N = np.flatnonzero(flat.labelled_N & np.isin(flat.previous_N, little))
    sure_N = np.flatnonzero(flat.labelled_N & (flat.probability_N > SURE) & (flat.label_N == flat.token_N))
    broken = [flat.place(at) for at in _spread(twice_N, count - count // 2)]
    fluent = [flat.place(at) for at in _spread(sure_N, count - len(broken))]
    return [(one, one.previous, "broken") for one in broken] + [(one, one.label, "fluent") for one in fluent]


class _Flat:
    """The positions of a labels table one after another: N of them."""

    def __init__(self, table: pa.Table, column: str):
        self.table = table
        lengths = np.array(table["input_ids"].combine_chunks().value_lengths())
        self.row_N = np.repeat(np.arange(table.num_rows), lengths)
        self.position_N = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self.token_N, self.label_N, self.probability_N = (
            table[name].combine_chunks().flatten().to_numpy() for name in ("input_ids", column, "baseline_prob")
        )
        self.previous_N = np.concatenate([[-1], self.token_N[:-1]])[: len(self.token_N)]
        self.labelled_N = (self.label_N != IGNORED) & (self.position_N > 0)

    def place(self, at: int) -> Place:
        row, position = int(self.row_N[at]), int(self.position_N[at])
        soft = self.table["topk_ids"][row][position].as_py() if "topk_ids" in self.table.column_names else []
        return Place(
            self.table["block_id"][row].as_py(),
            position,
            int(self.label_N[at]),
            float(self.probability_N[at]),
            int(self.token_N[at]),
            int(self.previous_N[at]),
            soft[: ALTERNATIVES + 1],
        )


def _spread(at_N: np.ndarray, count: int) -> np.ndarray:
    """At most so many, evenly over all of them."""
    return at_N[np.linspace(0, len(at_N) - 1, min(count, len(at_N))).astype(int)] if len(at_N) else at_N


def label_tasks(
    forget_set: str,
    found: Iterable[Place],
    gold: Iterable[tuple[Place, int, str]],
    blocks: Mapping[int, Mapping],
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[list[Task], list[Task]]:
    """The tasks of the places, in their order, and the gold tasks. blocks: block_id -> its row with before, text, ends.

    A label that is no whole character by itself cannot be shown, and is not asked about.
    """
    said = Continuations(tokenizer)
    tasks = [_task(forget_set, one, one.label, blocks[one.block_id], said) for one in found]
    known = [_task(forget_set, one, label, blocks[one.block_id], said, answer) for one, label, answer in gold]
    return [task for task in tasks if task], [task for task in known if task]


class Continuations:
    """What a token adds to the text after another one, which alone tells whether a space stands between them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.known: dict[tuple[int, int], str] = {}

    def __call__(self, previous: int, token: int) -> str:
        if (previous, token) not in self.known:
            alone = self._decode([previous])
            self.known[previous, token] = self._decode([previous, token])[len(alone) :]
        return self.known[previous, token]

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _task(
    forget_set: str, one: Place, label: int, block: Mapping, said: Continuations, gold: str | None = None
) -> Task | None:
    text = said(one.previous, label)
    if not text.strip() or "\N{REPLACEMENT CHARACTER}" in text:
        return None
    before = block["before"] + block["text"][: block["ends"][one.position - 1]]
    ideas: dict[str, str] = {}
    for token in one.alternatives:
        idea = said(one.previous, token)
        if token != label and idea.strip() and "\N{REPLACEMENT CHARACTER}" not in idea:
            ideas.setdefault(_shown(idea), idea)
    ideas = dict(list(ideas.items())[:ALTERNATIVES])
    # What follows in the document is the rest of the word where the label is the document's own.
    rest = _REST.match(block["text"], block["ends"][one.position]) if label == one.token else None
    word = text.lstrip()
    shown_before = text_before(before, len(before), CONTEXT, cut=bool(block["before"]))
    context = escaped(shown_before + text[: len(text) - len(word)])
    shown = page(f"{context}<mark><b>{escaped(word)}</b></mark>{escaped(rest[0] if rest else '')}")
    options = [{"value": idea, "hotkey": str(number)} for number, idea in enumerate(ideas, start=4)]
    facts = {
        "block_id": one.block_id,
        "position": one.position,
        "label": label,
        "text": text,
        "alternatives": ideas,
    }
    return make_task(
        "labels",
        forget_set,
        {"shown": shown, "alternatives": options},
        facts | ({"gold": gold} if gold else {}),
    )


def _shown(idea: str) -> str:
    """A continuation by itself: what goes on with the word before it has a hyphen in front, punctuation is quoted."""
    words = idea.strip()
    if not any(character.isalnum() for character in words):
        return f"“{words}”"
    return f"-{words}" if idea[0].isalnum() else words
