"""Passages: whole sentences, spread evenly, and more of them add to fewer."""

import pytest

from unlearn_ray.method.passages import draw_passages

SENTENCES = [f"This is sentence number {number} of the book, and it says little." for number in range(400)]
BOOK = " ".join(SENTENCES)


def test_passages_are_pieces_of_the_documents_that_end_with_sentences():
    documents = {"b": BOOK, "a": "One short text."}
    passages = draw_passages(documents, count=1000, characters=500, seed=0)
    for passage in passages:
        assert documents[passage.document][passage.start : passage.end] == passage.text
        assert passage.text.rstrip().endswith(".")
    assert "".join(p.text for p in sorted(passages, key=lambda p: p.start) if p.document == "b") == BOOK
    assert [p.text for p in passages if p.document == "a"] == ["One short text."]


@pytest.mark.parametrize("seed", range(5))
def test_passages_lie_evenly(seed):
    passages = draw_passages({"b": BOOK}, count=10, characters=500, seed=seed)
    starts = sorted(passage.start for passage in passages)
    gaps = [after - before for before, after in zip([0, *starts], [*starts, len(BOOK)], strict=True)]
    assert max(gaps) < 0.3 * len(BOOK)


def test_more_passages_add_to_fewer_and_another_seed_takes_others():
    few, many = (draw_passages({"b": BOOK}, count=count, characters=500, seed=1) for count in (7, 30))
    assert many[:7] == few and len(set(many)) == 30
    assert draw_passages({"b": BOOK}, count=7, characters=500, seed=2) != few


def test_a_text_without_sentences_is_cut_all_the_same():
    passages = draw_passages({"b": "x" * 1700}, count=9, characters=500, seed=0)
    assert sorted(len(passage.text) for passage in passages) == [500, 500, 700]
