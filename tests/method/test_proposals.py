"""What an answer of a language model is taken to say, whatever stands around it."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_ray.method.answers import Unreadable, asked_again
from unlearn_ray.method.proposals import Proposal, question, read_answer

ENTRY = {"anchor": "Zorblax", "generic": "Bob", "kind": "person"}
WHOLE = json.dumps({"anchors": [ENTRY, ENTRY | {"anchor": "Quendor"}]})
READ = [Proposal("Zorblax", "Bob", "person"), Proposal("Quendor", "Bob", "person")]


@pytest.mark.parametrize(
    "answer", [WHOLE, f"Sure!\n```json\n{WHOLE}\n```\nDone.", f"In {{braces}}: {WHOLE}", f'{{"thought": 1}} {WHOLE}']
)
def test_an_answer_is_found_in_what_stands_around_it(answer):
    assert read_answer(answer) == READ


def test_an_empty_list_is_an_answer():
    assert read_answer('{"anchors": []}') == []


def test_an_unknown_kind_is_other():
    assert read_answer(json.dumps({"anchors": [ENTRY | {"kind": "wizard"}]}))[0].kind == "other"


@pytest.mark.parametrize(
    ("answer", "rest"),
    [
        (WHOLE[:-3], READ[:1]),
        (json.dumps({"anchors": [ENTRY, {"term": "Quendor"}]}), READ[:1]),
        (json.dumps({"anchors": [ENTRY, {"anchor": "Quendor", "generic": ["a", "b"]}]}), READ[:1]),
        (json.dumps([ENTRY]), READ[:1]),
        (json.dumps({"anchors": "Zorblax"}), []),
        (json.dumps({"names": ["Zorblax"]}), []),
        ("Zorblax and Quendor", []),
        ("", []),
    ],
)
def test_what_can_be_read_of_a_bad_answer_is_kept(answer, rest):
    with pytest.raises(Unreadable) as caught:
        read_answer(answer)
    assert caught.value.rest == rest and str(caught.value)


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_answer_breaks_the_reader(answer):
    with contextlib.suppress(Unreadable):
        assert all(isinstance(one, Proposal) for one in read_answer(answer))


@given(st.integers(0, len(WHOLE)))
def test_a_cut_answer_gives_only_whole_entries(end):
    try:
        found = read_answer(WHOLE[:end])
    except Unreadable as problem:
        found = problem.rest
    assert found == READ[: len(found)]


def test_the_second_question_shows_the_first_answer():
    messages = asked_again(question("The passage."), "nonsense", "no list")
    assert messages[:2] == question("The passage.") and messages[2] == {"role": "assistant", "content": "nonsense"}
    assert "no list" in messages[3]["content"]
