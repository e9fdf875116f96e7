import math

import pytest

from unlearn_ray.method.keyness import PARTS, candidates, log_likelihood, log_ratio, spread

FILLER = "They walked along the road and talked about the weather until it was time to go home again. "


def found(text: str, min_count: int = 3) -> set[str]:
    return {candidate.anchor for candidate in candidates({"book": text}, min_count=min_count)}


def test_log_ratio_is_zero_where_text_and_english_agree():
    assert log_ratio(10, 1000, 0.01) == pytest.approx(0)
    assert log_ratio(20, 1000, 0.01) == pytest.approx(math.log(2))


def test_log_likelihood_agrees_with_the_sum_over_both_cells():
    count, total, expected = 30, 2000, 0.004
    cells = [(count, total * expected), (total - count, total * (1 - expected))]
    assert log_likelihood(count, total, expected) == pytest.approx(2 * sum(o * math.log(o / e) for o, e in cells))


def test_a_word_in_one_scene_is_less_spread_than_one_used_everywhere():
    assert spread([7] * 12) < 0.1
    assert spread(list(range(PARTS))) > 1


def test_names_are_found_and_sentence_starts_are_not():
    text = (FILLER + "Suddenly the wind met Zorbina there. Meanwhile old Tremlow saw Zorbina and Tremlow laughed. ") * 4
    assert {"Zorbina", "Tremlow"} <= found(text)
    assert not {"Suddenly", "Meanwhile", "They"} & found(text)


def test_headings_emphasis_and_calendar_words_are_no_names():
    heading = "\n\nCHAPTER IV. Down the Winding Staircase\n\n"
    text = (heading + FILLER + "It was VERY late, said Oh, on a Monday in April, and I was sure the English knew. ") * 5
    assert not {
        "Chapter",
        "CHAPTER",
        "Winding",
        "Staircase",
        "VERY",
        "Very",
        "Oh",
        "Monday",
        "April",
        "I",
        "English",
    } & found(text)


def test_common_nouns_that_the_book_capitalises_are_names():
    text = (FILLER + "At noon the Hatter met the Green Badger, and the Green Badger bowed to the Hatter. ") * 4
    assert {"Hatter", "Green Badger"} <= found(text)


def test_a_name_made_up_of_names_is_left_to_its_parts():
    text = (FILLER + "There was Orla Quenby at last. Then Orla spoke. She saw that Quenby and Orla Quenby wept. ") * 4
    text += "When they saw Orla they knew, and when they saw Quenby too. " * 4
    assert {"Orla", "Quenby"} <= found(text)
    assert "Orla Quenby" not in found(text)


def test_a_name_whose_words_are_never_used_alone_stays_whole():
    text = (FILLER + "They came to Quimble Street at last, and left Quimble Street by night. ") * 4
    assert "Quimble Street" in found(text)
    assert not {"Quimble", "Street"} & found(text)


def test_titles_are_not_part_of_a_name_but_saints_are():
    text = (FILLER + "So he asked Mr. Tremlow, and Mrs. Tremlow laughed at St. Quenby with Mr. Tremlow. ") * 4
    names = found(text)
    assert "Tremlow" in names
    assert not {"Mr. Tremlow", "Mrs. Tremlow", "Mr", "St"} & names
    assert "St. Quenby" in names or "Quenby" in names


def test_plural_families_count_for_the_name():
    text = (FILLER + "So the Tremlows saw Tremlow, and Tremlow saw the Tremlows with Tremlow. ") * 3
    by_name = {candidate.anchor: candidate for candidate in candidates({"book": text}, min_count=3)}
    assert "Tremlows" not in by_name
    assert by_name["Tremlow"].count == 15


def test_rare_names_are_left_out():
    text = FILLER * 5 + "And there stood Zorbina with Zorbina."
    assert "Zorbina" not in found(text)


def test_a_lower_case_coinage_is_certain_and_ordinary_words_are_no_candidates():
    text = (FILLER + "He threw the zorquill at the wall and the zorquill broke. ") * 6
    by_name = {candidate.anchor: candidate for candidate in candidates({"book": text}, min_count=3)}
    assert by_name["zorquill"].certain
    assert not {"wall", "road", "weather"} & set(by_name)


def test_candidates_do_not_depend_on_the_order_of_documents():
    one, two = (FILLER + "Then he saw Zorbina. ") * 4, (FILLER + "There was Tremlow. ") * 4
    assert candidates({"a": one, "b": two}, min_count=3) == candidates({"b": two, "a": one}, min_count=3)
