"""What a dictionary accepts and refuses, and how it is written."""

import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unlearn_ray.errors import InputError
from unlearn_ray.method.dictionary import KINDS, Anchor, AnchorDictionary, read_entries


def refusal(*entries: tuple[str, str]) -> str:
    with pytest.raises(InputError) as error:
        AnchorDictionary([Anchor(*entry) for entry in entries], "anchors.jsonl")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("anchors.jsonl")
    return str(error.value)


def test_entries_are_sorted_and_written_with_one_space():
    dictionary = AnchorDictionary([Anchor(" White \n Rabbit ", "Grey  Hare"), Anchor("Alice", "Clara", "person")])
    assert dictionary.anchors == (Anchor("Alice", "Clara", "person"), Anchor("White Rabbit", "Grey Hare"))


def test_a_dictionary_without_entries_is_refused():
    assert "no entries" in refusal()


def test_an_entry_without_words_is_refused():
    assert "no anchor or no generic translation:  -> Tom" in refusal((" \t ", "Tom"))
    assert "no anchor or no generic translation: Ron -> ." in refusal(("Ron", "\n"))


@pytest.mark.parametrize(("anchor", "generic"), [("Ron", "Ron"), ("Ron", "RON"), ("O'Brien", "O’Brien")])
def test_an_identity_is_refused_in_any_case(anchor, generic):
    assert f"the anchor itself: {anchor} -> {generic}" in refusal((anchor, generic))


@pytest.mark.parametrize("second", ["O'Brien", "O’Brien", " O'Brien"])
def test_one_anchor_given_twice_is_refused(second):
    assert "more than once: O'Brien -> Smith | Jones" in refusal(("O'Brien", "Smith"), (second, "Jones"))


def test_anchors_that_differ_in_case_are_two_anchors():
    assert len(AnchorDictionary([Anchor("Rose", "Ann"), Anchor("rose", "tulip")]).anchors) == 2


@pytest.mark.parametrize("generic", ["George", "Georges", "GEORGE", "Sir George's", "old George Smith"])
def test_a_translation_that_is_or_contains_an_anchor_is_refused(generic):
    message = refusal(("Fred", generic), ("George", "Paul"))
    assert f"Fred -> {generic} (has George)" in message
    assert "George -> Paul" not in message


def test_a_cycle_and_a_translation_that_repeats_its_own_anchor_are_refused():
    message = refusal(("Fred", "George"), ("George", "Fred"), ("Ron", "Ron Smith"))
    assert "Fred -> George (has George), George -> Fred (has Fred), Ron -> Ron Smith (has Ron)" in message


def test_a_refusal_names_the_first_entries_and_counts_the_rest():
    message = refusal(*[(f"Name{index}", f"name{index}") for index in range(9)])
    assert "Name4 -> name4 and 4 more" in message
    assert "Name5" not in message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Alice -> Clara", "not JSON"),
        ('["Alice", "Clara"]', "is not an object"),
        ('{"anchor": "Alice"}', "no field generic"),
        ('{"anchor": "Alice", "generic": "Clara", "knd": "person"}', "unknown field knd"),
        ('{"anchor": "Alice", "generic": null}', "generic is null; expected a text"),
        ('{"anchor": "Alice", "generic": "Clara", "kind": "girl"}', 'kind is "girl"; expected one of person'),
        ('{"anchor": "Alice", "generic": "Clara", "kind": []}', "kind is []; expected one of person"),
        ('{"anchor": "Alice", "generic": "Clara", "support": -1}', "support is -1; expected a whole number"),
        ('{"anchor": "Alice", "generic": "Clara", "support": true}', "support is true; expected a whole number"),
        ('{"anchor": "Alice", "generic": "Clara", "sources": "gpt"}', 'sources is "gpt"; expected a list of texts'),
    ],
)
def test_a_line_that_is_no_entry_is_refused_with_its_place(line, said):
    text = '{"anchor": "Ron", "generic": "Tom"}\n\n' + line + "\n"
    with pytest.raises(InputError) as error:
        AnchorDictionary.from_jsonl(text, "anchors.jsonl")
    assert str(error.value).startswith("anchors.jsonl, line 3: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_entries_are_read_as_they_stand_even_where_they_make_no_dictionary():
    text = '{"anchor": "Ron", "generic": "ron"}\n{"anchor": "Ron", "generic": "Tom", "sources": ["gpt"]}'
    assert read_entries(text, "anchors.jsonl") == [Anchor("Ron", "ron"), Anchor("Ron", "Tom", sources=("gpt",))]


words = st.text(min_size=1).filter(str.strip)
entries = st.builds(Anchor, words, words, st.sampled_from(KINDS), st.integers(0), st.tuples(words), words)


@given(st.lists(entries, min_size=1, max_size=5))
def test_writing_and_reading_gives_the_same_dictionary(anchors):
    try:
        dictionary = AnchorDictionary(anchors)
    except InputError:
        assume(False)
        raise
    written = dictionary.to_jsonl()
    assert AnchorDictionary.from_jsonl(written, "written").anchors == dictionary.anchors
    assert AnchorDictionary.from_jsonl(written, "written").to_jsonl() == written


def test_a_pickled_dictionary_finds_the_same():
    dictionary = AnchorDictionary([Anchor("White Rabbit", "Grey Hare"), Anchor("Alice", "Clara")])
    copy = pickle.loads(pickle.dumps(dictionary))
    text = "Alice's White\nRabbits"
    assert copy.anchors == dictionary.anchors
    assert copy.spans(text) == dictionary.spans(text) != []
