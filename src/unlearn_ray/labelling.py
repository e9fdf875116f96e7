"""Labelling blocks: `prepare` runs ahead on CPUs (translate, tokenise, align), `Labeller` holds the two models and does
what costs (forward passes and LM heads). Both go from Arrow table to Arrow table; free of Ray.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.material import specific_tokens
from unlearn_ray.method.alignment import ALIGNED, CUT_DIFFERENTLY, INSIDE_ANCHOR, INSIDE_CHARACTER, align, occurrences
from unlearn_ray.method.blocks import tokenise
from unlearn_ray.method.consistency import (
    continuations,
    first_token_forms,
    merged,
    named_tokens,
    repeat_starts,
    substitutions,
)
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.labels import (
    CHUNK,
    IGNORED,
    AnchorTokens,
    GenericLabels,
    Substitutions,
    cap_own_token,
    label_positions,
    on_device,
    soft_labels,
)
from unlearn_ray.method.translation import translate
from unlearn_ray.models import compile_layers, decoder, lm_head, out_of_memory

CPU_BATCH = 8
LENGTH_STEP = 8  # tokens
READ = ("translated_ids", "input_ids")  # what the models read of a prepared block
USED_SHARE = 0.8  # of a GPU's free memory

Made = TypeVar("Made")  # of one block

IDS = pa.list_(pa.int32())
PREPARED_SCHEMA = pa.schema(
    {
        "block_id": pa.int64(),
        "document": pa.string(),
        "index": pa.int32(),
        "input_ids": IDS,
        "translated_ids": IDS,
        "positions": IDS,  # the original positions t that get a label (for the token at t + 1), ascending
        "targets": IDS,  # the aligned translated position u; -1 inside an anchor, read on the original text
        "substitution_rows": IDS,  # see labels.Substitutions; rows count in `positions`
        "substitution_generics": IDS,
        "substitution_anchors": IDS,
        "anchor_next": pa.list_(pa.bool_()),  # whether the token after each of `positions` belongs to an anchor
        "named_ids": IDS,  # anchors that are forbidden until named: the tokens that the block names, and from which row
        "named_rows": IDS,
        "ignored": pa.map_(pa.string(), pa.int32()),  # reason -> positions without a label
    }
)


@dataclass(frozen=True)
class LabelSettings:
    """consistency: restore | paper; inside_anchors: original | skip; scope: all | anchors; unnamed_anchors: keep |
    forbid; top_k: tokens of a soft label, 0 for none; recitation_cap: the most that a soft label gives the text's own
    next token, 1 for as much as it has."""

    alphas: tuple[float, ...]
    consistency: str
    inside_anchors: str
    scope: str
    unnamed_anchors: str
    top_k: int
    recitation_cap: float = 1.0


class Preparer:
    """Translates, tokenises and aligns a table of blocks (blocks.BLOCK_SCHEMA -> PREPARED_SCHEMA)."""

    def __init__(self, dictionary: AnchorDictionary, tokenizer: PreTrainedTokenizerFast, settings: LabelSettings):
        self.dictionary, self.tokenizer, self.settings = dictionary, tokenizer, settings
        self.forms: dict[int, tuple[tuple[int, int], ...]] = {}  # filled as anchors are met: most occur in few blocks
        self.tokens_of = specific_tokens(tokenizer, dictionary)
        self.beginnings = set().union(*self.tokens_of)

    def __call__(self, blocks: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self.prepare(block) for block in blocks.to_pylist()], PREPARED_SCHEMA)

    def prepare(self, block: dict) -> dict:
        """One block's aligned positions, and why the others are ignored."""
        translation = translate(block["text"], self.dictionary, block["before"], block["after"])
        [translated] = tokenise(self.tokenizer, [translation.text])
        starts, ends = np.array(block["starts"]), np.array(block["ends"])
        alignment = align(starts, ends, translation, translated.starts_T, translated.ends_T)
        found = occurrences(starts, ends, translation)
        reasons = alignment.reasons_T[:-1]  # the last position predicts a token of the next block
        use = reasons == ALIGNED
        if self.settings.inside_anchors == "original":
            use |= reasons == INSIDE_ANCHOR
        repeats = np.zeros(len(use), bool)
        if self.settings.consistency == "paper":
            repeats[repeat_starts(found)] = True
        positions = np.flatnonzero(use & ~repeats)
        targets = alignment.targets_T[positions]
        changes = self._substitutions(found, positions, targets)
        named = {}
        if self.settings.unnamed_anchors == "forbid":
            changes = merged(changes, continuations(found, positions, block["input_ids"]))
            named = named_tokens(found, positions, block["input_ids"], self.tokens_of, self.beginnings)
        in_anchor = np.zeros(len(starts), bool)
        for occurrence in found:
            in_anchor[occurrence.first : occurrence.last + 1] = True
        ignored = {
            name: int((~use & ~repeats & (reasons == reason)).sum())
            for name, reason in (
                ("inside_anchor", INSIDE_ANCHOR),
                ("cut_differently", CUT_DIFFERENTLY),
                ("inside_character", INSIDE_CHARACTER),
            )
        } | {"repeated_anchor": int(repeats.sum())}
        return {key: block[key] for key in ("block_id", "document", "index", "input_ids")} | {
            "translated_ids": translated.ids_T,
            "positions": positions,
            "targets": targets,
            "substitution_rows": changes.rows_N,
            "substitution_generics": changes.generic_ids_N,
            "substitution_anchors": changes.anchor_ids_N,
            "anchor_next": in_anchor[positions + 1],
            "named_ids": list(named),
            "named_rows": list(named.values()),
            "ignored": ignored,
        }

    def _substitutions(self, found: Sequence, positions_P: np.ndarray, targets_P: np.ndarray) -> Substitutions:
        for anchor in {occurrence.anchor for occurrence in found} - self.forms.keys():
            entry = self.dictionary.anchors[anchor]
            self.forms[anchor] = first_token_forms(self.tokenizer, entry.anchor, entry.generic)
        changes = substitutions(found, positions_P, self.forms, self.settings.consistency)
        # Inside an anchor the baseline reads the original text, where no translation has occurred.
        keep = targets_P[changes.rows_N] >= 0
        return Substitutions(changes.rows_N[keep], changes.generic_ids_N[keep], changes.anchor_ids_N[keep])


class Labeller:
    """Labels a table of prepared blocks with the two models (PREPARED_SCHEMA -> label_schema)."""

    def __init__(
        self,
        baseline: PreTrainedModel,
        reinforced: PreTrainedModel | PeftModel,
        leading: Sequence[int],
        settings: LabelSettings,
        *,
        anchor_ids: Sequence[int],
        batch_blocks: int = CPU_BATCH,
    ):
        """reinforced: a second model, or a PeftModel on this very baseline, whose adapter is then on for one pass and
        off for the other. anchor_ids: the tokens that can begin an anchor, ascending.
        """
        self.baseline, self.reinforced, self.leading = baseline, reinforced, list(leading)
        self.settings, self.anchor_ids, self.batch_blocks = settings, np.array(anchor_ids, np.int64), batch_blocks
        compile_layers(baseline)
        compile_layers(reinforced)
        self.heads = lm_head(baseline), lm_head(reinforced)
        self.anchor_head = lm_head(reinforced, self.anchor_ids) if settings.scope == "anchors" else None

    def __call__(self, prepared: pa.Table) -> pa.Table:
        """Batches depend on the data alone, as long as each fits into the memory.

        A GPU gets the work of all batches before the labels of the first are asked for: it never waits for Python.
        """
        blocks = prepared.to_pylist()
        labelled = in_batches(self.label, blocks, READ, self.leading, self.batch_blocks)
        rows = [label_row(block, labels, self.settings) for block, labels in zip(blocks, labelled, strict=True)]
        return pa.Table.from_pylist(rows, label_schema(self.settings))

    @torch.inference_mode()
    def label(self, blocks: Sequence[dict]) -> list[GenericLabels]:
        """The labels of one batch of blocks, at their `positions`."""
        reinforced = hidden_states(self.reinforced, self.leading, [block["input_ids"] for block in blocks])
        by_anchors = self.settings.scope == "anchors"
        read_as_is = [block["input_ids"] for block in blocks if by_anchors or -1 in block["targets"]]
        with self._without_adapter():
            translated = hidden_states(self.baseline, self.leading, [block["translated_ids"] for block in blocks])
            original = iter(hidden_states(self.baseline, self.leading, read_as_is))
        results = []
        for block, reinforced_TH, baseline_UH in zip(blocks, reinforced, translated, strict=True):
            device = baseline_UH.device
            positions = on_device(np.array(block["positions"], np.int64), device)
            targets = on_device(np.array(block["targets"], np.int64), device)
            baseline_PH, original_PH = baseline_UH[targets.clamp(min=0)], None
            if by_anchors or -1 in block["targets"]:
                original_PH = next(original)[positions]
                baseline_PH = torch.where((targets < 0)[:, None], original_PH, baseline_PH)
            labels = label_positions(
                baseline_PH,
                reinforced_TH.to(device)[positions],
                *self.heads,
                self.settings.alphas,
                Substitutions(
                    *(np.array(block[f"substitution_{name}"], np.int64) for name in ("rows", "generics", "anchors"))
                ),
                self._anchor_tokens(block),
                hidden_original_TH=original_PH if by_anchors else None,
                anchor_head=self.anchor_head,
                top_k=self.settings.top_k,
            )
            if self.settings.recitation_cap < 1:
                own = on_device(np.array(block["input_ids"], np.int64), device)[positions + 1]
                labels = cap_own_token(labels, own, self.settings.recitation_cap)
            results.append(labels)
        return results

    def find_batch(self, block_tokens: int) -> int:
        """How many blocks of so many tokens a batch takes: on a GPU what fits into its free memory by the measure of
        one block, as a power of two, so that equal GPUs find the same; on a CPU, where more gain nothing, CPU_BATCH.
        """
        if self.baseline.device.type != "cuda":
            return CPU_BATCH
        block = blank_block(block_tokens + block_tokens // 4)  # a translation may be longer than its block
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.label([block])
        needed = torch.cuda.max_memory_allocated() - before
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        return 2 ** int(math.log2(max(USED_SHARE * free / needed, 1)))

    def _without_adapter(self) -> AbstractContextManager[None]:
        return self.reinforced.disable_adapter() if isinstance(self.reinforced, PeftModel) else nullcontext()

    def _anchor_tokens(self, block: dict) -> AnchorTokens:
        allowed_from = np.zeros(len(self.anchor_ids), np.int64)
        if self.settings.unnamed_anchors == "forbid":
            allowed_from[:] = len(block["positions"])
            allowed_from[np.searchsorted(self.anchor_ids, block["named_ids"])] = block["named_rows"]
        return AnchorTokens(
            self.anchor_ids, allowed_from, np.array(block["anchor_next"], bool), np.array(block["targets"]) < 0
        )


def blank_block(length: int) -> dict:
    """A prepared block without content that costs what any of so many tokens does: for measuring."""
    rows = list(range(length - 1))
    return dict.fromkeys(PREPARED_SCHEMA.names, ()) | {
        "input_ids": [0] * length,
        "translated_ids": [0] * length,
        "positions": rows,
        "targets": rows,
        "anchor_next": [False] * len(rows),
    }


def in_batches(
    label: Callable[[list[dict]], list[Made]],
    blocks: list[dict],
    columns: Sequence[str],
    leading: Sequence[int],
    batch_blocks: int,
) -> list[Made]:
    """What `label` makes of each block, in their order; in batches, where `label` reads the ids in `columns`."""
    labelled: dict[int, Made] = {}
    for batch in batches(blocks, columns, leading, batch_blocks):
        labelled |= zip(batch, _in_halves(label, [blocks[at] for at in batch]), strict=True)
    return [labelled[at] for at in range(len(blocks))]


def batches(
    blocks: Sequence[dict], columns: Sequence[str], leading: Sequence[int], batch_blocks: int
) -> list[list[int]]:
    """The indices of blocks in batches of at most so many.

    The blocks of a batch have one padded length in each column, so that a block is padded alike whatever the size of
    the batches: kernels that compute every sequence for itself then give the same for any size.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for at, block in enumerate(blocks):
        alike.setdefault(tuple(padded(len(leading) + len(block[column])) for column in columns), []).append(at)
    groups = [alike[key] for key in sorted(alike)]
    return [group[start : start + batch_blocks] for group in groups for start in range(0, len(group), batch_blocks)]


def padded(length: int) -> int:
    """Up to a multiple of LENGTH_STEP, so that blocks of about one length come into few groups."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def _in_halves(label: Callable[[list[dict]], list[Made]], batch: list[dict]) -> list[Made]:
    """label(batch), or where that takes more memory than there is both halves, one after the other."""
    try:
        return label(batch)
    except RuntimeError as error:
        if len(batch) == 1 or not out_of_memory(error):
            raise
    # Outside of the handler, where nothing holds the tensors of what failed any more.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(batch) // 2
    return _in_halves(label, batch[:half]) + _in_halves(label, batch[half:])


def hidden_states(
    model: PreTrainedModel | PeftModel, leading: Sequence[int], sequences: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Last hidden states [T, H] of each sequence from one padded batch, without those of the leading ids and of
    padding.

    What stands after a position is nothing to a causal model, so padding on the right needs no mask.
    """
    if not sequences:
        return []
    ids = [torch.tensor([*leading, *sequence]) for sequence in sequences]
    ids_BT = pad_sequence(ids, batch_first=True)
    ids_BT = torch.nn.functional.pad(ids_BT, (0, padded(ids_BT.shape[1]) - ids_BT.shape[1]))
    hidden_BTH = decoder(model)(input_ids=on_device(ids_BT, model.device), use_cache=False).last_hidden_state
    return [hidden_TH[len(leading) : len(i)] for hidden_TH, i in zip(hidden_BTH, ids, strict=True)]


def alpha_column(alpha: float) -> str:
    """labels_5, labels_2.5: the column of one alpha's labels."""
    return f"labels_{alpha:g}"


def label_schema(settings: LabelSettings) -> pa.Schema:
    """The columns of labels-*/: plain Arrow types, one row a block, every list as long as input_ids."""
    soft = {"topk_ids": pa.list_(IDS), "topk_logprobs": pa.list_(pa.list_(pa.float32()))} if settings.top_k else {}
    return pa.schema(
        {"block_id": pa.int64(), "document": pa.string(), "index": pa.int32(), "input_ids": IDS}
        | {alpha_column(alpha): IDS for alpha in settings.alphas}
        | {"baseline_prob": pa.list_(pa.float32())}
        | soft
    )


def label_row(block: dict, labels: GenericLabels, settings: LabelSettings) -> dict:
    """The row of one block. Position t predicts token t + 1, and labels[i] is the target of token i: hence the
    shift.
    """
    length, at = len(block["input_ids"]), np.array(block["positions"], np.int64) + 1
    row = {key: block[key] for key in ("block_id", "document", "index", "input_ids")}
    for alpha, labels_P in zip(settings.alphas, labels.labels_KT.cpu().numpy(), strict=True):
        row[alpha_column(alpha)] = np.full(length, IGNORED, np.int32)
        row[alpha_column(alpha)][at] = labels_P
    row["baseline_prob"] = np.zeros(length, np.float32)
    row["baseline_prob"][at] = labels.baseline_prob_T.cpu().numpy()
    if settings.top_k:
        row["topk_ids"], row["topk_logprobs"] = [[]] * length, [[]] * length
        ids_PS, logprobs_PS = labels.topk_ids_TS.cpu().numpy(), labels.topk_logprobs_TS.cpu().numpy()
        for i, ids_S, logprobs_S in zip(at, ids_PS, logprobs_PS, strict=True):
            row["topk_ids"][i], row["topk_logprobs"][i] = ids_S, logprobs_S
    return row


@torch.inference_mode()
def label_text(
    model: PreTrainedModel, leading: Sequence[int], blocks: pa.Table, top_k: int, *, batch_blocks: int = CPU_BATCH
) -> pa.Table:
    """Soft labels of the blocks' own text by the model itself: what a retain term holds another model to."""
    schema = pa.schema(
        {
            "block_id": pa.int64(),
            "input_ids": IDS,
            "topk_ids": pa.list_(IDS),
            "topk_logprobs": pa.list_(pa.list_(pa.float32())),
        }
    )
    head = lm_head(model)

    def label(batch: list[dict]) -> list[dict]:
        rows = []
        for block, hidden_TH in zip(batch, hidden_states(model, leading, [b["input_ids"] for b in batch]), strict=True):
            parts = [soft_labels(head(part_TH), top_k) for part_TH in hidden_TH[:-1].split(CHUNK)]
            ids, logprobs = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
            rows.append(block | {"topk_ids": [[], *ids], "topk_logprobs": [[], *logprobs]})
        return rows

    rows = blocks.select(["block_id", "input_ids"]).to_pylist()
    return pa.Table.from_pylist(in_batches(label, rows, ["input_ids"], leading, batch_blocks), schema)
