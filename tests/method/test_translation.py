"""A translated block reads right, also at its cuts, and its segments say where everything went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.translation import Segment, translate

DICTIONARY = AnchorDictionary([Anchor("Alice", "Clara"), Anchor("White Rabbit", "Old Grey Hare"), Anchor("灯", "火山")])
ALICE, RABBIT, LAMP = 0, 1, 2


def test_segments_hold_the_places_on_both_sides():
    translation = translate("Alice met Alice's\nWhite Rabbit.", DICTIONARY)
    assert translation.text == "Clara met Clara's\nOld Grey Hare."
    assert translation.segments == (
        Segment(0, 5, 0, 5, ALICE, True),
        Segment(10, 15, 10, 15, ALICE, True),
        Segment(18, 30, 18, 31, RABBIT, True),
    )


def test_adjacent_anchors_have_adjacent_segments():
    translation = translate("灯灯", DICTIONARY)
    assert translation.text == "火山火山"
    assert translation.segments == (Segment(0, 1, 0, 2, LAMP, True), Segment(1, 2, 2, 4, LAMP, True))


def test_a_text_without_anchors_stays_as_it_is():
    assert translate("Nobody came.", DICTIONARY).text == "Nobody came."
    assert translate("", DICTIONARY, "Alice", "Alice") == translate("", DICTIONARY)


@pytest.mark.parametrize(("before", "text", "after"), [("m", "Alice", ""), ("", "Alice", "n"), ("O'", "Alice", "")])
def test_the_context_tells_that_an_anchor_is_part_of_a_word(before, text, after):
    assert translate(text, DICTIONARY, before, after).text == "Alice"


def test_an_anchor_divided_by_the_cut_is_replaced_whole_on_both_sides():
    document, cut = "So the White Rabbit ran", len("So the White R")
    left = translate(document[:cut], DICTIONARY, "", document[cut:])
    right = translate(document[cut:], DICTIONARY, document[:cut], "")
    assert left.text == "So the Old Grey Hare"
    assert left.segments == (Segment(7, 14, 7, 20, RABBIT, False),)
    assert right.text == "Old Grey Hare ran"
    assert right.segments == (Segment(0, 5, 0, 13, RABBIT, True),)


def test_a_text_inside_an_anchor_is_replaced_and_never_whole():
    translation = translate("te Ra", DICTIONARY, "Whi", "bbit")
    assert translation.text == "Old Grey Hare"
    assert translation.segments == (Segment(0, 5, 0, 13, RABBIT, False),)


def test_an_anchor_that_ends_or_begins_at_the_cut_belongs_to_one_side():
    assert translate("Alice", DICTIONARY, "White Rabbit ", " went").segments == (Segment(0, 5, 0, 5, ALICE, True),)
    assert translate(" and ", DICTIONARY, "Alice", "White Rabbit").segments == ()


PIECES = ["Alice", "White", " ", "\n\n", "Rabbit", "ALICES", "灯", "mice", ".", "-"]


@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=10).map("".join), st.integers(0), st.integers(0)
)
def test_between_segments_the_text_is_unchanged_and_on_them_it_is_the_replacement(document, first, second):
    start, end = sorted((first % (len(document) + 1), second % (len(document) + 1)))
    text, before, after = document[start:end], document[:start], document[end:]
    translation = translate(text, DICTIONARY, before, after)
    place = out_place = 0
    for segment in translation.segments:
        assert text[place : segment.start] == translation.text[out_place : segment.out_start]
        place, out_place = segment.end, segment.out_end
    assert text[place:] == translation.text[out_place:]

    expected = [span for span in DICTIONARY.spans(document) if max(span.start, start) < min(span.end, end)]
    assert [translation.text[s.out_start : s.out_end] for s in translation.segments] == [
        s.replacement for s in expected
    ]
    assert [s.whole for s in translation.segments] == [span.end <= end for span in expected]
