"""Alignment is METHOD.md's definition, nothing more and nothing less, for every tokenizer family."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_ray.method.alignment import (
    ALIGNED,
    CUT_DIFFERENTLY,
    INSIDE_ANCHOR,
    INSIDE_CHARACTER,
    Occurrence,
    align,
    occurrences,
)
from unlearn_ray.method.blocks import cut_blocks, tokenise
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.translation import Translation, translate

# Prefixes of each other, overlapping, adjacent without a space, with an accent, a hyphen and a line break, one in
# scripts without spaces inside another.
POOL = {
    "Finch": "Wren",
    "Finch Hall": "Old Grey Manor",
    "Hall of Kings": "Room",
    "Rosamund": "Ann",
    "Rosamund Finch": "Ann-Marie Wren",
    "é": "ö",
    "café": "tavern",
    "queen": "duchess",
    "灯": "火山",
    "灯塔": "山",
    "塔": "石头",
    "😂": "😀😀",
}
GLUE = ["", " ", "\n", "\n\n", " the ", "'s ", ". ", " -- ", "-", "s ", " walked ", "—"]
anchors_in_text = st.tuples(st.sampled_from(sorted(POOL)), st.sampled_from(GLUE)).map("".join)
texts = st.lists(anchors_in_text | st.text(max_size=3), max_size=40).map("".join)
dictionaries = st.sets(st.sampled_from(sorted(POOL)), min_size=1).map(
    lambda anchors: AnchorDictionary(Anchor(anchor, POOL[anchor]) for anchor in anchors)
)


def translated_prefix(text: str, end: int, spans: list[tuple[int, int, str]]) -> str | None:
    """text[:end] translated, or None where it ends strictly inside an anchor."""
    prefix, done = "", 0
    for start, stop, replacement in spans:
        if end <= start:
            break
        if end < stop:
            return None
        prefix, done = prefix + text[done:start] + replacement, stop
    return prefix + text[done:end]


def ends_inside_character(starts: list[int], ends: list[int], index: int) -> bool:
    return index + 1 < len(ends) and starts[index + 1] < ends[index]


def reference(
    row: dict, dictionary: AnchorDictionary, translation: Translation, translated
) -> tuple[list[int], list[int]]:
    """Targets and reasons, straight from the definition: every t against every u, as strings."""
    shift, text = len(row["before"]), row["text"]
    # An anchor that runs on ends beyond the text, so that no position of the text is past it.
    spans = [
        (max(span.start - shift, 0), span.end - shift, span.replacement)
        for span in dictionary.spans(row["before"] + text + row["after"])
        if span.end > shift and span.start < shift + len(text)
    ]
    starts_u, ends_u = translated.starts_T.tolist(), translated.ends_T.tolist()
    groups: dict[str, tuple[list[int], list[int]]] = {}
    reasons = []
    for t, end in enumerate(row["ends"]):
        prefix = translated_prefix(text, end, spans)
        if prefix is None:
            reasons.append(INSIDE_ANCHOR)
        elif ends_inside_character(row["starts"], row["ends"], t):
            reasons.append(INSIDE_CHARACTER)
        else:
            reasons.append(CUT_DIFFERENTLY)
            groups.setdefault(prefix, ([], []))[0].append(t)
    for u, end in enumerate(ends_u):
        prefix = translation.text[:end]
        if prefix in groups and not ends_inside_character(starts_u, ends_u, u):
            groups[prefix][1].append(u)
    targets = [-1] * len(reasons)
    for ts, us in groups.values():
        pairs = zip(ts, us, strict=True) if len(ts) == len(us) else zip(ts[-1:], us[-1:], strict=False)
        for t, u in pairs:
            targets[t], reasons[t] = u, ALIGNED
    return targets, reasons


@settings(max_examples=200, deadline=None)
@given(document=texts, dictionary=dictionaries, block_tokens=st.integers(20, 40))
def test_alignment_is_the_definition_on_every_block(any_tokenizer, document, dictionary, block_tokens):
    for row in cut_blocks("d", "A" + document, any_tokenizer, block_tokens).to_pylist():
        translation = translate(row["text"], dictionary, row["before"], row["after"])
        [translated] = tokenise(any_tokenizer, [translation.text])
        found = align(row["starts"], row["ends"], translation, translated.starts_T, translated.ends_T)
        targets, reasons = reference(row, dictionary, translation, translated)
        assert found.targets_T.tolist() == targets
        assert found.reasons_T.tolist() == reasons
        assert found.targets_T.dtype == np.int32
        assert found.reasons_T.dtype == np.int8


def aligned(
    text: str, ends: list[int], entries: dict[str, str], ends_u: list[int], after: str = ""
) -> tuple[list, list]:
    """Align tokens that follow each other without gaps."""
    translation = translate(text, AnchorDictionary(Anchor(*entry) for entry in entries.items()), "", after)
    found = align([0, *ends[:-1]], ends, translation, [0, *ends_u[:-1]], ends_u)
    return found.targets_T.tolist(), found.reasons_T.tolist()


def test_only_the_last_position_of_an_anchor_of_several_tokens_is_aligned():
    # A|li|ce| ran -> Cl|ara| ran
    assert aligned("Alice ran", [1, 3, 5, 9], {"Alice": "Clara"}, [2, 5, 9]) == (
        [-1, -1, 1, 2],
        [INSIDE_ANCHOR, INSIDE_ANCHOR, ALIGNED, ALIGNED],
    )


def test_a_cut_that_only_one_side_has_is_dropped():
    # Alice|'|s| dog -> Clara|'s| dog
    assert aligned("Alice's dog", [5, 6, 7, 11], {"Alice": "Clara"}, [5, 7, 11]) == (
        [0, -1, 1, 2],
        [ALIGNED, CUT_DIFFERENTLY, ALIGNED, ALIGNED],
    )


def test_between_adjacent_anchors_there_is_an_aligned_position():
    assert aligned("灯塔", [1, 2], {"灯": "火山", "塔": "石"}, [2, 3]) == ([0, 1], [ALIGNED, ALIGNED])


def test_an_anchor_that_runs_into_the_next_block_has_not_ended():
    assert aligned("a White R", [2, 7, 9], {"White Rabbit": "Hare"}, [2, 6], after="abbit") == (
        [0, -1, -1],
        [ALIGNED, INSIDE_ANCHOR, INSIDE_ANCHOR],
    )


def test_positions_inside_a_character_have_no_text_on_either_side():
    translation = Translation("é", ())
    found = align([0, 0], [1, 1], translation, [0, 0, 0], [1, 1, 1])
    assert found.targets_T.tolist() == [-1, 2]
    assert found.reasons_T.tolist() == [INSIDE_CHARACTER, ALIGNED]


@pytest.mark.parametrize(
    ("ends_u", "targets"),
    [
        ([0, 1, 1, 1, 2], [0, 1, 2, 3, 4]),
        ([0, 1, 1, 2], [0, -1, -1, 2, 3]),
        ([1, 1, 1, 1, 2], [-1, -1, -1, 3, 4]),
        ([2], [-1, -1, -1, -1, 0]),
        ([], [-1, -1, -1, -1, -1]),
    ],
)
def test_positions_at_one_place_pair_in_order_or_only_the_last(ends_u, targets):
    assert aligned("ab", [0, 1, 1, 1, 2], {"c": "d"}, ends_u)[0] == targets


def test_nothing_aligns_with_nothing():
    assert aligned("", [], {"c": "d"}, []) == ([], [])


def test_occurrences_go_from_the_first_to_the_last_covering_token():
    dictionary = AnchorDictionary([Anchor("Alice", "Clara"), Anchor("White Rabbit", "Hare")])
    text = "'Alice' saw Alice, White Rab"
    translation = translate(text, dictionary, "", "bit")
    # 'Al|ice|'| saw ||Al|ic|e,| White| Rab, the fifth without a character
    ends = [3, 6, 7, 12, 12, 14, 16, 18, 24, 28]
    assert occurrences([0, *ends[:-1]], ends, translation) == [
        Occurrence(anchor=0, first=0, last=1, whole=True),
        Occurrence(anchor=0, first=5, last=7, whole=True),
        Occurrence(anchor=1, first=8, last=9, whole=False),
    ]


def test_an_anchor_without_tokens_does_not_occur():
    translation = translate("a 灯 b", AnchorDictionary([Anchor("灯", "山")]))
    assert occurrences([0, 4], [1, 5], translation) == []


ALICE = """
Alice>Clara; White Rabbit>Grey Hare; Rabbit>Badger; Queen of Hearts>Lady of Bells; Queen>Countess; King>Earl; Mock
Turtle>Stuffed Tortoise; Gryphon>Wyvern; March Hare>April Fox; Hatter>Cobbler; Dormouse>Hedgehog; Cheshire
Cat>Cornish Lynx; Cat>Lynx; Duchess>Baroness; Caterpillar>Beetle; Dinah>Mabel; Dodo>Heron; Mouse>Vole; Lory>Finch;
Eaglet>Owlet; Bill>Tom; Knave of Hearts>Jack of Bells; Knave>Jack; Wonderland>Dreamland; Lobster Quadrille>Oyster
Polka; Father William>Uncle Robert; croquet>bowls; Pat>Joe; Mary Ann>Jane Lou; Footman>Porter; Lobster>Oyster
"""
DEMO_DATA = Path(os.environ.get("UNLEARN_RAY_DEMO_DATA", Path(__file__).parents[2] / "data" / "demo"))


@pytest.mark.slow
def test_on_a_real_book_99_of_100_positions_outside_anchors_align(any_tokenizer):
    book = DEMO_DATA / "alice.txt"
    if not book.is_file():
        pytest.skip(f"{book} is not there: `make demo` fetches it, or set UNLEARN_RAY_DEMO_DATA to its folder")
    entries = (entry.partition(">") for entry in ALICE.split(";"))
    dictionary = AnchorDictionary(Anchor(anchor, generic) for anchor, _, generic in entries)
    rows = cut_blocks("alice", book.read_text(encoding="utf-8"), any_tokenizer, 512).to_pylist()
    translations = [translate(row["text"], dictionary, row["before"], row["after"]) for row in rows]
    tokens = tokenise(any_tokenizer, [translation.text for translation in translations])
    reasons = np.concatenate(
        [
            align(row["starts"], row["ends"], translation, translated.starts_T, translated.ends_T).reasons_T
            for row, translation, translated in zip(rows, translations, tokens, strict=True)
        ]
    )
    outside = reasons[reasons != INSIDE_ANCHOR]
    assert (outside == ALIGNED).mean() >= 0.99
    assert (reasons == INSIDE_ANCHOR).any()
