"""The matching rules, one by one in plain sight, and all of them against a slow reference that reads character by
character.
"""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_ray.method.dictionary import Anchor, AnchorDictionary


def translated(text: str, **entries: str) -> str:
    """`text` with its anchors replaced; in an entry's name a double underscore stands for a space."""
    return replaced(text, {anchor.replace("__", " "): generic for anchor, generic in entries.items()})


def replaced(text: str, entries: dict[str, str]) -> str:
    dictionary = AnchorDictionary(Anchor(anchor, generic) for anchor, generic in entries.items())
    for span in reversed(dictionary.spans(text)):
        text = text[: span.start] + span.replacement + text[span.end :]
    return text


def test_the_longest_of_the_leftmost_wins_whatever_the_order_of_entries():
    entries = {"Queen": "Countess", "Queen of Hearts": "Lady of Bells", "Hearts and Clubs": "Pins and Needles"}
    assert replaced("the Queen of Hearts and Clubs", entries) == "the Lady of Bells and Clubs"
    assert replaced("the Queen of Spades", entries) == "the Countess of Spades"


def test_a_longest_match_that_is_no_word_gives_way_to_a_shorter_one():
    entries = {"White": "Grey", "White Rab": "Brown Bad"}
    assert replaced("White Rabbit, White Rab", entries) == "Grey Rabbit, Brown Bad"


@pytest.mark.parametrize(
    "text",
    [
        "iron",
        "Ronald",
        "MacRon",
        "Ron2",
        "2Ron",
        "Roné",
        "Rone\u0301",
        "Ron\u0301",
        "O'Ron",
        "O’Ron",
        "Ron'ald",
        "Mary-Ron",
        "Jean's-Ron",
        "Ron-Paul",
        "Ron\u2011Paul",
        "ron",
        "RoN",
        "Ron'sy",
    ],
)
def test_an_anchor_is_not_found_inside_another_word(text):
    assert translated(text, Ron="Tom") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ron", "Tom"),
        ("_Ron_ *Ron*", "_Tom_ *Tom*"),
        ("'Ron' ‘Ron’", "'Tom' ‘Tom’"),
        ("said--Ron--that–Ron—", "said--Tom--that–Tom—"),
        ("half-Ron, Ron-like", "half-Tom, Tom-like"),
        ("Mary Paul-like-Ron", "Mary Paul-like-Tom"),
        ("Ron's Ron’s RON'S Ron'", "Tom's Tom’s TOM'S Tom'"),
        ("Ron'll Ron’d Ron've", "Tom'll Tom’d Tom've"),
        ("Ron.Ron,Ron", "Tom.Tom,Tom"),
        ("罗Ron和", "罗Tom和"),
        ("ロンRonさんー", "ロンTomさんー"),
        ("RON Rons RONS", "TOM Toms TOMS"),
    ],
)
def test_an_anchor_is_found_where_it_is_a_word(text, expected):
    assert translated(text, Ron="Tom") == expected


def test_scripts_without_spaces_have_a_boundary_anywhere_but_inside_a_character():
    assert replaced("爱丽丝说", {"爱丽丝": "小明"}) == "小明说"
    assert replaced("คนแฮร์รี่ไป", {"แฮร์รี่": "สมชาย"}) == "คนสมชายไป"
    assert replaced("か\u3099", {"か": "き"}) == "か\u3099"


def test_case_is_that_of_the_source():
    assert translated("wand Wand WAND", wand="stick") == "stick Stick STICK"
    assert translated("x X", x="stick") == "stick Stick"
    assert translated("White Rabbit WHITE RABBIT white rabbit", White__Rabbit="grey hare") == (
        "grey hare GREY HARE white rabbit"
    )


def test_an_entry_that_is_written_so_wins_over_a_derived_form():
    entries = {"wand": "stick", "Wand": "Tower", "wands": "reeds"}
    assert replaced("wand Wand wands Wands WAND", entries) == "stick Tower reeds Towers TOWER"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Weasleys", "Churches"),
        ("the Weasleys' house", "the Churches' house"),
        ("WEASLEYS", "CHURCHES"),
        ("foxes", "ladies"),
        ("Harrys, Harries", "Toms, Toms"),
        ("witches, berrys", "ladies, berrys"),
        ("berries", "plums"),
    ],
)
def test_plural_forms_match_and_the_replacement_is_pluralised(text, expected):
    entries = {"Weasley": "Church", "fox": "lady", "Harry": "Tom", "berry": "plum", "witch": "lady"}
    assert replaced(text, entries) == expected


@pytest.mark.parametrize("gap", ["\n", "\r\n", "  ", "\t", "\u00a0", " \n\n "])
def test_any_whitespace_matches_a_space_and_is_kept(gap):
    before = "one\n\ntwo  three\n"  # runs before the anchor, so that positions must be carried over
    text = f"{before}White{gap}Rabbit ran"
    assert translated(text, White__Rabbit="Grey Hare") == f"{before}Grey{gap}Hare ran"
    assert translated(text, White__Rabbit="Old Grey Hare") == f"{before}Old{gap}Grey Hare ran"
    assert translated(text, White__Rabbit="Hare") == f"{before}Hare ran"


def test_apostrophes_and_composed_letters_match_however_they_are_typed():
    assert replaced("O’Brien O'Brien", {"O'Brien": "Smith"}) == "Smith Smith"
    assert replaced("O’Brien O'Brien", {"O’Brien": "Smith"}) == "Smith Smith"
    assert replaced("Zoe\u0308 Zo\u00eb", {"Zo\u00eb": "Ann"}) == "Ann Ann"
    assert replaced("Zoe\u0308 Zo\u00eb", {"Zoe\u0308": "Ann"}) == "Ann Ann"


# The reference: for every place, the longest of all forms that is bounded there.

SUFFIXES = ("s", "d", "m", "ll", "re", "ve")
ENTRIES = {
    "Ron": "Tom",
    "Ron Oz": "Al Bo",
    "Oz": "Ed",
    "oz": "in",
    "字か": "木",
    "字": "火",
    "O'R": "Mc",
    "Jo-Ro": "Li",
}


def is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"


def is_unspaced(text: str, index: int) -> bool:
    while index > 0 and unicodedata.category(text[index])[0] == "M":
        index -= 1
    return unicodedata.name(text[index], "").startswith(("CJK", "HIRAGANA"))


def word_before(text: str, end: int) -> str:
    start = end
    while start > 0 and is_word(text[start - 1]):
        start -= 1
    return text[start:end]


def word_after(text: str, start: int) -> str:
    end = start
    while end < len(text) and is_word(text[end]):
        end += 1
    return text[start:end]


def begins_a_word(text: str, start: int) -> bool:
    if start == 0:
        return True
    previous = text[start - 1]
    if is_word(previous):
        return is_unspaced(text, start) or is_unspaced(text, start - 1)
    if previous == "'":
        return not word_before(text, start - 1).rstrip("\u0301")[-1:].isalpha()
    if previous == "-":
        parts = [word_before(text, start - 1)]
        while text[: start - 1 - len("'".join(parts))].endswith("'"):
            parts.insert(0, word_before(text, start - 2 - len("'".join(parts))))
        return not any(part[:1].isupper() for part in parts)
    return True


def ends_a_word(text: str, end: int) -> bool:
    if end == len(text):
        return True
    following, rest = text[end], word_after(text, end + 1)
    if unicodedata.category(following)[0] == "M":
        return False
    if is_word(following):
        return is_unspaced(text, end - 1) or is_unspaced(text, end)
    if following == "'":
        return not rest[:1].isalpha() or rest.lower() in SUFFIXES
    return following != "-" or not rest[:1].isupper()


def slow_spans(text: str) -> list[tuple[int, int, str]]:
    forms = {}
    for change in (str, lambda word: word[0].upper() + word[1:], str.upper):
        for anchor, generic in ENTRIES.items():
            forms.setdefault(change(anchor), change(generic))
        for anchor, generic in ENTRIES.items():
            forms.setdefault(change(anchor + ("es" if anchor.lower().endswith("z") else "s")), change(generic + "s"))
    spans = []
    start = 0
    while start < len(text):
        ends = [
            start + len(form)
            for form in forms
            if text.startswith(form, start) and begins_a_word(text, start) and ends_a_word(text, start + len(form))
        ]
        if ends:
            spans.append((start, max(ends), forms[text[start : max(ends)]]))
        start = max([start + 1, *ends])
    return spans


PIECES = [
    *ENTRIES,
    "R",
    "o",
    "RON",
    "Rons",
    "ozes",
    "s",
    "'s",
    "'ll",
    "'",
    "-",
    "_",
    " ",
    "e",
    "E",
    "1",
    "\u0301",
    "字",
    "か",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_matching_agrees_with_the_slow_reference(text):
    dictionary = AnchorDictionary(Anchor(anchor, generic) for anchor, generic in ENTRIES.items())
    assert [(span.start, span.end, span.replacement) for span in dictionary.spans(text)] == slow_spans(text)


@given(st.text())
def test_spans_of_any_text_are_in_order_and_do_not_overlap(text):
    dictionary = AnchorDictionary([Anchor("a", "bc"), Anchor("a 0", "d"), Anchor("é", "f"), Anchor("ß", "g")])
    places = [0, *(place for span in dictionary.spans(text) for place in (span.start, span.end)), len(text)]
    assert places == sorted(places)
    assert all(span.start < span.end for span in dictionary.spans(text))
