import pytest

from unlearn_ray.method.keyness import candidates
from unlearn_ray.method.kinds import Sort, is_plural

FILLER = "They walked along the road and talked about the weather until it was time to go home again. "


def sort_of(name: str, sentence: str) -> Sort:
    by_name = {c.anchor: c.sort for c in candidates({"book": (FILLER + sentence + " ") * 5}, min_count=3)}
    return by_name[name]


@pytest.mark.parametrize(
    ("name", "sentence", "kind", "gender"),
    [
        ("Zorbin", "So Zorbin said that he would take his hat.", "person", "m"),
        ("Zorbina", "So Zorbina said that she would take her hat.", "person", "f"),
        ("Quenby", "There stood Mrs. Quenby in the rain.", "person", "f"),
        ("Quenby", "There stood Mr. Quenby in the rain.", "person", "m"),
        ("Harriet", "There went Harriet along the lane.", "person", "f"),
        ("Thornwick", "They lived at Thornwick, and were born in Thornwick.", "place", ""),
        ("Quimble Street", "They came to Quimble Street, and left Quimble Street.", "place", ""),
        ("Gryphon", "Then the Gryphon said nothing, and the Gryphon slept.", "creature", ""),
        ("Duchess", "Then the Duchess laughed at the Duchess.", "title", "f"),
    ],
)
def test_the_words_around_a_name_tell_its_kind_and_gender(name: str, sentence: str, kind: str, gender: str):
    sort = sort_of(name, sentence)
    assert (sort.kind, sort.gender) == (kind, gender)


def test_a_name_after_a_title_is_a_family_name_and_one_before_another_name_is_given():
    sentence = "Then Orlan Quenby spoke to Mr. Quenby. They saw Quenby, and saw Orlan; he was Orlan."
    assert sort_of("Quenby", sentence).form == "family"
    assert sort_of("Orlan", sentence).form == "given"


def test_a_person_called_by_a_common_noun_takes_an_article():
    assert sort_of("Hatter", "Then the Hatter said to the Hatter that he slept.") == Sort(
        "person", "m", False, "common"
    )


def test_plurals_are_told_from_names_that_end_in_s():
    assert is_plural("hearts") and is_plural("lobsters")
    assert not is_plural("holmes") and not is_plural("james") and not is_plural("glass")
