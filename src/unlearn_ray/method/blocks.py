"""Tokenise documents and cut them into blocks, without losing where each token stands in the text."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unlearn_ray.errors import InputError

BLOCK_SCHEMA = pa.schema(
    [
        ("block_id", pa.int64()),
        ("document", pa.string()),
        ("index", pa.int32()),
        ("text", pa.string()),
        ("before", pa.string()),
        ("after", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("starts", pa.list_(pa.int32())),
        ("ends", pa.list_(pa.int32())),
    ]
)
_CONTEXT = 256  # characters on either side of a block: longer than any anchor


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text: ids, and the characters [start, end) that each stands for. int32 arrays."""

    ids_T: np.ndarray
    starts_T: np.ndarray
    ends_T: np.ndarray


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens]:
    """Tokenise texts as nothing but text, with offsets that tell the truth.

    A special token written out in a document ("<|endoftext|>") is plain characters here, and nothing is put in front.
    Some byte-level post-processors report offsets without the spaces that their tokens have, which would move block
    cuts and align unequal texts; without special tokens to add, a post-processor does nothing else, so none is used.
    Raises InputError for a tokenizer that has no offsets.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"the tokenizer {type(tokenizer).__name__} has no character offsets, which alignment needs: "
            "use a model that has a tokenizer.json"
        )
    backend = tokenizer.backend_tokenizer
    post_processor = backend.post_processor
    backend.post_processor = None
    try:
        encoded = tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
    finally:
        backend.post_processor = post_processor
    offsets = (np.array(offsets, dtype=np.int32).reshape(-1, 2) for offsets in encoded["offset_mapping"])
    return [
        Tokens(np.array(ids, dtype=np.int32), offsets_T2[:, 0], offsets_T2[:, 1])
        for ids, offsets_T2 in zip(encoded["input_ids"], offsets, strict=True)
    ]


def first_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """The id of the first token of a word within a text, after a space."""
    [tokens] = tokenise(tokenizer, [" " + word])
    return int(tokens.ids_T[np.flatnonzero(tokens.ends_T > 1)[0]])


def cut_blocks(document: str, text: str, tokenizer: PreTrainedTokenizerBase, block_tokens: int) -> pa.Table:
    """Cut a document into runs of block_tokens tokens, the last one shorter, as rows of BLOCK_SCHEMA.

    The document is tokenised whole and then cut, so that no word is tokenised other than where it stands. The blocks'
    texts together are the document, and their input_ids its tokens, without BOS; starts and ends are relative to the
    block's text; before and after are its surroundings in the document. A block ends earlier where its cut would
    divide a character. block_id depends on the document's name and the block's index alone. Raises InputError for a
    document without tokens, and for a character that takes more than block_tokens.
    """
    [tokens] = tokenise(tokenizer, [text])
    if not len(tokens.ids_T):
        raise InputError(f"document {document} has no tokens: it is empty or holds nothing the tokenizer knows")
    rows = []
    cuts = _cuts(document, tokens, block_tokens)
    for index, (first, stop) in enumerate(pairwise(cuts)):
        start = int(tokens.starts_T[first]) if index else 0
        end = int(tokens.starts_T[stop]) if stop < len(tokens.ids_T) else len(text)
        rows.append(
            {
                "block_id": _block_id(document, index),
                "document": document,
                "index": index,
                "text": text[start:end],
                "before": text[max(start - _CONTEXT, 0) : start],
                "after": text[end : end + _CONTEXT],
                "input_ids": tokens.ids_T[first:stop],
                "starts": tokens.starts_T[first:stop] - start,
                "ends": tokens.ends_T[first:stop] - start,
            }
        )
    return pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA)


def _cuts(document: str, tokens: Tokens, block_tokens: int) -> list[int]:
    """The index of each block's first token, and the number of tokens at the end."""
    count = len(tokens.ids_T)
    allowed = np.array([0, *np.flatnonzero(tokens.starts_T[1:] >= tokens.ends_T[:-1]) + 1, count])
    cuts = [0]
    while cuts[-1] < count:
        cut = int(allowed[np.searchsorted(allowed, cuts[-1] + block_tokens, side="right") - 1])
        if cut <= cuts[-1]:
            raise InputError(
                f"document {document}: the character at offset {tokens.starts_T[cuts[-1]]} takes more than "
                f"{block_tokens} tokens: give a larger block_tokens"
            )
        cuts.append(cut)
    return cuts


def _block_id(document: str, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{document}\0{index}".encode()).digest()[:8], "big") >> 1
