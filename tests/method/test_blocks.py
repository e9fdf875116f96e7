"""Blocks lose nothing of a document, whatever the text and the tokenizer."""

import hashlib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from unlearn_ray.errors import InputError
from unlearn_ray.method.blocks import BLOCK_SCHEMA, cut_blocks, tokenise

pieces = st.sampled_from(
    ["Rosamund", " the", " café", "\n\n", "  ", "灯塔", "😂", "e\u0301", "<|endoftext|>", "<s>", "ﬁ", "."]
)
documents = st.lists(pieces | st.text(max_size=4), max_size=60).map("".join)


@settings(max_examples=150, deadline=None)
@given(document=documents, block_tokens=st.integers(20, 40))
def test_blocks_together_are_the_document_and_its_tokens(any_tokenizer, document, block_tokens):
    [whole] = tokenise(any_tokenizer, [document])
    assume(len(whole.ids_T))
    table = cut_blocks("d", document, any_tokenizer, block_tokens)
    assert table.schema == BLOCK_SCHEMA
    rows = table.to_pylist()
    assert "".join(row["text"] for row in rows) == document
    plain = any_tokenizer(document, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert [i for row in rows for i in row["input_ids"]] == plain

    place, tokens = 0, 0
    for index, row in enumerate(rows):
        assert row["index"] == index
        assert 0 < len(row["input_ids"]) <= block_tokens
        assert row["before"] == document[:place][-256:]
        assert row["after"] == document[place + len(row["text"]) :][:256]
        assert [place + start for start in row["starts"]] == whole.starts_T[tokens:][: len(row["starts"])].tolist()
        assert [place + end for end in row["ends"]] == whole.ends_T[tokens:][: len(row["ends"])].tolist()
        # No token reaches over the cut: neither a character nor a token is divided.
        assert min(row["starts"]) >= 0
        assert max(row["ends"]) <= len(row["text"])
        place += len(row["text"])
        tokens += len(row["input_ids"])


def test_a_block_ends_early_rather_than_inside_a_character(byte_level_tokenizer):
    rows = cut_blocks("d", "😂" * 5, byte_level_tokenizer, 10).to_pylist()  # four byte tokens each
    assert [row["text"] for row in rows] == ["😂😂", "😂😂", "😂"]
    assert [len(row["input_ids"]) for row in rows] == [8, 8, 4]


@pytest.mark.parametrize(("text", "offset"), [("😂", 0), ("😂ab", 0), ("ab😂", 2), ("ab😂c", 2)])
def test_a_character_longer_than_a_block_is_refused(byte_level_tokenizer, text, offset):
    with pytest.raises(InputError, match=f"document d: the character at offset {offset} takes more than 3 tokens"):
        cut_blocks("d", text, byte_level_tokenizer, 3)


def test_a_document_without_tokens_is_refused(any_tokenizer):
    with pytest.raises(InputError, match="document d has no tokens"):
        cut_blocks("d", "", any_tokenizer, 8)


def test_block_ids_depend_on_the_document_and_index_alone(byte_level_tokenizer):
    first = cut_blocks("books/alice.txt", "Rosamund Finch " * 20, byte_level_tokenizer, 16)
    other = cut_blocks("books/emma.txt", "Rosamund Finch " * 20, byte_level_tokenizer, 16)
    again = cut_blocks("books/alice.txt", "Another text " * 20, byte_level_tokenizer, 16)
    expected = int(hashlib.sha256(b"books/alice.txt\x001").hexdigest(), 16) >> (256 - 63)
    assert first["block_id"][1].as_py() == again["block_id"][1].as_py() == expected
    assert not set(first["block_id"].to_pylist()) & set(other["block_id"].to_pylist())


def test_special_tokens_written_in_a_text_are_plain_text(any_tokenizer):
    special = [token for token in any_tokenizer.get_added_vocab() if token not in ("<unk>", "[UNK]")]
    assert special
    [tokens] = tokenise(any_tokenizer, ["a".join(special) + "a"])
    assert not set(any_tokenizer.convert_tokens_to_ids(special)) & set(tokens.ids_T.tolist())


def test_offsets_include_the_spaces_that_tokens_have(byte_level_tokenizer):
    """The tokenizer's own post-processor trims them, and must be left as it was."""
    text = " Rosamund  Finch\n\n came"
    [tokens] = tokenise(byte_level_tokenizer, [text])
    assert tokens.starts_T.tolist() == [0, *tokens.ends_T[:-1].tolist()]
    assert tokens.ends_T[-1] == len(text)
    trimmed = byte_level_tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert [start for start, _ in trimmed] != tokens.starts_T.tolist()


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(InputError, match="ByT5Tokenizer has no character offsets"):
        cut_blocks("d", "Rosamund", ByT5Tokenizer(), 8)
