"""From proposals as language models make them to a dictionary without their faults."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_ray.method.dictionary import KINDS, AnchorDictionary
from unlearn_ray.method.findings import check
from unlearn_ray.method.proposals import Proposal
from unlearn_ray.method.settling import settle

DAY = """\
In the morning Harry Potter went down to the kitchen of the old house, and Harry looked for his wand. The wand was gone.
'Who took it?' said Harry. Ron Weasley laughed at him. 'Fred did,' said Ron, and Fred ran out of the kitchen. They came
to Hogwarts by night, where Professor McGonagall met them; Potter's trunk was still on the train. Mr. Potter had a box,
and the parents of Ron had Quidditch brooms. In the hall of Hogwarts they played quidditch, and Hermione Granger read
her book while Hermione's cat slept. Mrs. Weasley waved to the Hogwarts Express.
"""
BOOK = {"book": DAY * 5 + "At the door stood Dobby."}


def proposed(*entries: tuple[str, str, str], times: int = 1) -> list[Proposal]:
    return [
        Proposal(anchor, generic, kind, f"passage {number}", "llm")
        for number in range(times)
        for anchor, generic, kind in entries
    ]


def settled(proposals, **settings):
    return settle(proposals, BOOK, **({"min_count": 3, "max_anchors": 100, "seed": 0} | settings))


def translations(proposals, **settings) -> dict[str, str]:
    return {entry.anchor: entry.generic for entry in settled(proposals, **settings).anchors}


def test_the_forms_of_one_name_become_one_entry_with_the_votes_of_all():
    result = settled(
        proposed(("Harry", "Jon", "person"), ("Harry's", "Jon", "person"), ("the Harry", "Sam", "person"))
        + proposed(("HARRY", "Jon", "person"), ("Mr. Harry", "Jon", "person"))
    )
    [entry] = result.anchors
    assert (entry.anchor, entry.generic, entry.kind, entry.sources) == ("Harry", "Jon", "person", ("llm",))


def test_parts_of_names_are_translated_alike_and_grouped():
    result = settled(
        proposed(("Harry", "Jon", "person"), ("Potter", "Smith", "person"), ("Mr Potter", "Mr Smith", "person"))
        + proposed(("Harry Potter", "Peter Parker", "person"), ("Ron Weasley", "Max Muster", "person"))
        + proposed(("Ron", "Leo", "person"), ("Weasley", "Muster", "person"))
    )
    found = {entry.anchor: entry.generic for entry in result.anchors}
    assert found["Harry Potter"] == f"{found['Harry']} {found['Potter']}" == "Jon Smith"
    assert found["Ron Weasley"] == f"{found['Ron']} {found['Weasley']}" == "Leo Muster"
    assert result.aliases == [("Harry Potter", "Harry", "Potter"), ("Ron Weasley", "Ron", "Weasley")]


def test_a_full_name_alone_lends_its_parts_to_the_names_that_share_them():
    found = translations(proposed(("Ron Weasley", "Max Muster", "person"), ("Weasley", "Olsen", "person"), times=2))
    assert found["Ron Weasley"].split()[-1] == found["Weasley"] == "Olsen"


def test_the_most_voted_fit_translation_is_taken():
    votes = proposed(("Hermione", "Anna", "person")) + proposed(("Hermione", "Bella", "person"), times=2)
    assert translations(votes) == {"Hermione": "Bella"}


@pytest.mark.parametrize(
    "unfit",
    [
        "Harry",  # another anchor
        "Hermione",  # itself
        "Morning",  # a word of the documents
        "Peter",  # of the other gender than most proposals
        "Jon",  # what another anchor became
    ],
)
def test_an_unfit_translation_is_not_taken_however_many_want_it(unfit):
    wanted = proposed(("Hermione", unfit, "person"), ("Harry", "Jon", "person"), times=2)
    more = proposed(("Hermione", "Clara", "person"), ("Hermione", "Cora", "person"), ("Hermione", "Nora", "person"))
    found = translations(wanted + more)
    assert found["Hermione"] != unfit
    assert found["Harry"] == "Jon"
    assert not check_errors(found)


def check_errors(found: dict[str, str]) -> list[str]:
    dictionary = settled(proposed(*((anchor, generic, "person") for anchor, generic in found.items()))).anchors
    return [finding.name for finding in check(dictionary, list(BOOK.values())) if finding.level == "error"]


def test_no_two_translations_share_a_first_token():
    entries = [("Harry", "Andrew", "person"), ("Ron", "Andreas", "person"), ("Fred", "Anders", "person")]
    first = lambda word: ord(word[0]) * 1000 + ord(word[1])
    found = translations(proposed(*entries), first_token=first)
    assert len({first(generic) for generic in found.values()}) == 3
    assert "Andrew" in found.values()


def test_terms_that_are_no_anchors_are_left_out_each_with_its_reason():
    result = settled(
        proposed(
            ("wand", "stick", "object"),
            ("kitchen", "pantry", "place"),
            ("box", "case", "object"),
            ("Zorblax", "Bob", "person"),
            ("!!!", "what", "other"),
            ("In the morning Harry Potter went down to the kitchen", "x", "other"),
            ("quidditch", "football", "expression"),
        )
    )
    assert [entry.anchor.lower() for entry in result.anchors] == ["quidditch"]
    assert result.dropped == {
        "wand": "an ordinary word",
        "kitchen": "an ordinary word",
        "box": "an ordinary word",
        "zorblax": "not in the documents",
        "!!!": "no term",
        "In the morning Harry Potter went down to the kitchen": "no term",
    }


def test_few_mentions_and_too_many_anchors_are_reasons_too():
    result = settled(proposed(("Harry", "Jon", "person"), ("Ron", "Leo", "person")), max_anchors=1)
    assert result.dropped == {"Ron": "beyond the 1 most often proposed"}
    result = settled(proposed(("Harry", "Jon", "person"), ("Ron", "Leo", "person")), min_count=100)
    assert set(result.dropped.values()) == {"fewer than 100 mentions"}


def test_support_counts_passages_and_not_forms():
    entries = proposed(("Harry", "Jon", "person"), ("Harry's", "Jon", "person"), times=3)
    assert [entry.support for entry in settled(entries).anchors] == [3]


def test_a_seed_gives_one_dictionary_whatever_the_order_of_the_proposals():
    entries = proposed(("Harry", "x", "person"), ("Ron", "Ron", "person"), ("Hogwarts", "Harry", "place"), times=2)
    assert settled(entries) == settled(entries[::-1])
    assert settled(entries) != settled(entries, seed=1)


PLANTED = proposed(
    *(("Harry", "Jon", "person"), ("Harry", "Jack", "person"), ("Harry", "Joe", "person")),  # conflict
    *(("Ron", "Harry", "person"), ("Fred", "Ron", "person")),  # translations that are anchors
    *(("Hermione", "Hermione", "person"), ("Hogwarts", "hogwarts", "place")),  # identities
    *(("Harry Potter", "Peter Parker", "person"), ("Hogwarts Express", "Night Train", "object")),  # prefixes
    *(("wand", "stick", "object"), ("parents", "elders", "person"), ("box", "crate", "object")),  # ordinary
    *(("kitchen", "pantry", "place"), ("Voldemort", "Walter", "person"), ("", "nothing", "other")),  # ordinary, unused
    *(("Weasley", "Jon", "person"), ("Granger", "Jon", "person")),  # one translation for three
    times=2,
) + proposed(("Dobby", "Tim", "creature"))  # seen once


def test_no_planted_fault_of_real_dictionaries_survives():
    result = settled(PLANTED)
    AnchorDictionary(result.anchors)  # no conflict, identity or chain
    found = {finding.name: finding for finding in check(result.anchors, list(BOOK.values()))}
    assert set(found) <= {"coverage", "not in the dictionary", "prefixes"}
    generics = [entry.generic for entry in result.anchors]
    assert len(set(generics)) == len(generics)
    # A longer anchor is translated in keeping with the one that begins it.
    by_anchor = {entry.anchor: entry.generic for entry in result.anchors}
    for longer, shorter in (("Harry Potter", "Harry"), ("Hogwarts Express", "Hogwarts")):
        assert by_anchor[longer].startswith(by_anchor[shorter])
    assert {"wand", "parents", "box", "kitchen", "voldemort", "", "Dobby"} <= result.dropped.keys()


SURFACES = """Harry|Harry Potter|Mr. Potter|Potter's|Ron|Ron Weasley|Mrs. Weasley|Weasley|Fred|Hogwarts|Granger|Harries
the Hogwarts Express|Quidditch|quidditch brooms|Professor McGonagall|wand|kitchen|Hermione Granger|Nobody|the old house
trunk|weasleys""".replace("\n", "|").split("|")
TRANSLATIONS = [*SURFACES, "Jon", "Jon Smith", "Smith", "Anna", "Night Train", "the Express", "Elm", "elms", "x1"]


@given(
    st.lists(st.builds(Proposal, st.sampled_from(SURFACES), st.sampled_from(TRANSLATIONS), st.sampled_from(KINDS))),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_proposed_the_dictionary_is_sound(proposals, seed):
    result = settled(proposals, min_count=1, seed=seed)
    if result.anchors:
        AnchorDictionary(result.anchors)
    generics = [entry.generic.casefold() for entry in result.anchors]
    assert len(set(generics)) == len(generics)
