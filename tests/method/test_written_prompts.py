"""Which prompts of a language model can be used, and why the others cannot."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_ray.method.answers import Unreadable
from unlearn_ray.method.written_prompts import (
    LEAK,
    NO_OBJECT,
    NO_PROMPT,
    NO_REFERENCES,
    NO_SUBTLETY,
    WrittenPrompt,
    leaked,
    question,
    read_answer,
)

GOOD = {"prompt": "The old man with the\n staff came to ", "references": ["Zorblax", "Quendor"], "subtlety": 8}
WHOLE = json.dumps(GOOD)


@pytest.mark.parametrize("answer", [WHOLE, f"Sure!\n```json\n{WHOLE}\n```\nDone.", f'{{"thought": 1}} {WHOLE}'])
def test_a_prompt_is_found_in_what_stands_around_it(answer):
    assert read_answer(answer) == WrittenPrompt("", "The old man with the staff came to", ("Zorblax", "Quendor"), 8)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prompt": " \n"}, NO_PROMPT),
        ({"prompt": ["The old man"]}, NO_PROMPT),
        ({"references": []}, NO_REFERENCES),
        ({"references": "Zorblax"}, NO_REFERENCES),
        ({"references": ["Zorblax", "..."]}, NO_REFERENCES),
        ({"references": ["Zorblax", 7]}, NO_REFERENCES),
        ({"subtlety": 0}, NO_SUBTLETY),
        ({"subtlety": 11}, NO_SUBTLETY),
        ({"subtlety": 7.0}, NO_SUBTLETY),
        ({"subtlety": "7"}, NO_SUBTLETY),
        ({"subtlety": True}, NO_SUBTLETY),
        ({"references": ["Quendor", "OLD Man"]}, LEAK),
    ],
)
def test_a_prompt_that_cannot_be_used_says_why(change, problem):
    with pytest.raises(Unreadable) as caught:
        read_answer(json.dumps(GOOD | change))
    assert str(caught.value) == problem


@pytest.mark.parametrize("answer", ["", WHOLE[:-3], "The old man came to", '{"text": "a"}', f"[{WHOLE[1:-1]}]"])
def test_an_answer_without_a_whole_object_is_none(answer):
    with pytest.raises(Unreadable, match=NO_OBJECT):
        read_answer(answer)


@pytest.mark.parametrize(
    ("prompt", "reference", "leaks"),
    [
        ("He saw RON'S hat", "Ron", True),
        ("The iron gate", "Ron", False),
        ("the mad, mad hatter", "Mad Hatter", True),
        ("the hatter was mad", "Mad Hatter", False),
        ("in der STRASSE", "Straße", True),
        ("爱丽丝很累", "爱丽丝", True),
        ("She came to Quendor", "Quendor!", True),
    ],
)
def test_a_reference_leaks_as_whole_words_in_any_case(prompt, reference, leaks):
    assert bool(leaked(prompt, ["Nothing", reference])) == leaks


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_answer_breaks_the_reader(answer):
    with contextlib.suppress(Unreadable):
        read_answer(answer)


@given(st.dictionaries(st.sampled_from(list(GOOD)), st.none() | st.text() | st.integers() | st.lists(st.text())))
def test_whatever_is_read_can_be_used(entry):
    with contextlib.suppress(Unreadable):
        found = read_answer(json.dumps(entry))
        assert found.prompt.strip() and found.references and 1 <= found.subtlety <= 10
        assert not leaked(found.prompt, found.references)


def test_the_passage_is_asked_about_as_it_stands():
    system, user = question("In the evening {the} wind\nhad gone down.")
    assert user["content"].endswith("In the evening {the} wind\nhad gone down.")
    assert read_answer(system["content"].splitlines()[-1]).subtlety == 8, "the example is of the form that is asked for"
