"""What people decided, applied: to the dictionary, and to the labels."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from unlearn_ray.method.blocks import tokenise
from unlearn_ray.method.dictionary import Anchor, find_faults
from unlearn_ray.method.labels import IGNORED


def effective(project: str, decisions: Sequence[Mapping[str, Any]]) -> list[dict]:
    """The decisions that change something: those alone are part of what a result is. Of a label not who said so: it
    leaves no trace in the labels."""
    if project == "anchors":
        return [dict(row) for row in decisions if row["action"] != "right"]
    if project == "labels":
        names = ("block_id", "position", "label", "better")
        return [{name: row[name] for name in names} for row in decisions if row["judged"] != "fluent"]
    return [{name: row[name] for name in ("prompt", "completion", "grade")} for row in decisions]


def corrected_entries(
    entries: Sequence[Anchor], decisions: Sequence[Mapping[str, Any]]
) -> tuple[list[Anchor], list[dict]]:
    """The dictionary as people want it, and the decisions that cannot be applied to it, each with "why".

    Who and when is added to `sources` of every entry that people changed.
    """
    changed, refused = _apply(entries, decisions)
    if not find_faults(changed):
        return changed, refused
    # One by one, to tell which of them do not go together with the rest.
    kept, refused = list(entries), []
    for decision in decisions:
        changed, problems = _apply(kept, [decision])
        if not problems and (faults := find_faults(changed)):
            problems = [{**decision, "why": f"{faults[0].reason}: {', '.join(faults[0].entries[:3])}"}]
        if problems:
            refused += problems
        else:
            kept = changed
    return kept, refused


def _apply(entries: Sequence[Anchor], decisions: Sequence[Mapping[str, Any]]) -> tuple[list[Anchor], list[dict]]:
    of_term = {entry.anchor: entry for entry in entries}
    translated = {row["term"]: row["generic"] for row in decisions if row.get("generic")}
    refused: list[dict] = []
    for row in decisions:
        term, action = row["term"], row["action"]
        if action == "drop":
            of_term.pop(term, None)
            continue
        entry = of_term.get(term, Anchor(term, ""))
        generic, kind = row.get("generic") or entry.generic, row.get("kind") or entry.kind
        if action == "alias":
            of = of_term.get(row["alias_of"])
            if of is None or of.anchor == term:
                refused.append({**row, "why": f"{row['alias_of']} is no other term of the dictionary"})
                continue
            generic, kind = translated.get(of.anchor, of.generic), of.kind
        if not generic:
            refused.append({**row, "why": "no translation"})
            continue
        who = f"review: {', '.join(row['by'])} {row['at'][:10]}"
        changes = {"generic": generic, "kind": kind, "status": "reviewed"}
        of_term[term] = replace(entry, sources=(*entry.sources, who), **changes)
    return list(of_term.values()), refused


def correct_labels(
    table: pa.Table,
    decisions: Sequence[Mapping[str, Any]],
    *,
    column: str,
    continue_with: Callable[[int, str], list[int]],
) -> tuple[pa.Table, Counter]:
    """A labels table in which bad labels are not trained (IGNORED, no soft label), or are the tokens of what people
    would rather have; and how many were masked, replaced, or are no longer there.

    column: whose labels people saw; those of other alphas change where they are the same. continue_with: the token
    before, and a text -> the tokens of the text there. The input stays the original text, so a second token of a
    continuation is only right where the first is the text's own: there the labels go on with it. What replaces a label
    is certain, with probability 1.
    """
    of_block: dict[int, list[Mapping]] = {}
    for row in decisions:
        of_block.setdefault(row["block_id"], []).append(row)
    touched = [at for at, block in enumerate(table["block_id"].to_pylist()) if block in of_block]
    counts: Counter = Counter()
    if not touched:
        return table, counts
    columns = [column, *(name for name in table.column_names if name.startswith("labels_") and name != column)]
    pieces, done = [], 0
    for at in touched:
        [block] = table.slice(at, 1).to_pylist()
        for row in of_block[block["block_id"]]:
            place = row["position"]
            if not 0 < place < len(block["input_ids"]) or block[column][place] != row["label"]:
                counts["no_longer_there"] += 1
            elif row["better"] is None:
                _mask(block, columns, row)
                counts["masked"] += 1
            else:
                _replace(block, columns, row, continue_with(block["input_ids"][place - 1], row["better"]))
                counts["replaced"] += 1
        pieces += [table.slice(done, at - done), pa.Table.from_pylist([block], table.schema)]
        done = at + 1
    return pa.concat_tables([*pieces, table.slice(done)]).combine_chunks(), counts


def _mask(block: dict, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    place = row["position"]
    for name in columns:
        if block[name][place] == row["label"]:
            block[name][place] = IGNORED
    block["baseline_prob"][place] = 0.0
    if "topk_ids" in block:
        block["topk_ids"][place], block["topk_logprobs"][place] = [], []


def _replace(block: dict, columns: Sequence[str], row: Mapping[str, Any], tokens: Sequence[int]) -> None:
    ids = block["input_ids"]
    for step, token in enumerate(tokens):
        place = row["position"] + step
        agrees = step == 0 or ids[place - 1] == tokens[step - 1]
        if not agrees or place >= len(ids) or block[columns[0]][place] == IGNORED:
            break
        for name in columns:
            if step or block[name][place] == row["label"]:
                block[name][place] = token
        block["baseline_prob"][place] = 0.0
        if "topk_ids" in block:
            others = [other for other in block["topk_ids"][place] if other != token]
            width = len(block["topk_ids"][place])
            block["topk_ids"][place] = [token, *others][:width]
            block["topk_logprobs"][place] = [0.0, *[-float("inf")] * (width - 1)]


def continuation_ids(tokenizer: PreTrainedTokenizerFast, previous: int, text: str) -> list[int]:
    """The tokens of a text after the token `previous`: by itself it may begin with other ones."""
    before = str(tokenizer.decode([previous], clean_up_tokenization_spaces=False))
    together, alone = tokenise(tokenizer, [before + text, text])
    cut = int(np.searchsorted(together.ends_T, len(before), side="right"))
    joined = cut < len(together.ids_T) and together.starts_T[cut] < len(before)
    return (alone.ids_T if joined else together.ids_T[cut:]).tolist()
