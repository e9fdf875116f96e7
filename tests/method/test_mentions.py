import pytest

from unlearn_ray.method.mentions import Name, find_names, read_words


def words(text: str) -> list[str]:
    return [word.text for word in read_words(text)]


def opening(text: str) -> list[str]:
    return [word.text for word in read_words(text) if word.opens]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He saw it. They left.", ["He", "They"]),
        ("He said, 'Come here,' and left.", ["He", "Come", "and"]),
        ('He said "Come here" twice.', ["He", "Come", "twice"]),
        ("He met Mr. Quenby and J. Pell there.", ["He"]),
        ("He stopped--Then he ran.", ["He", "Then"]),
        ("He ran,\nthen stopped;\nThen slept.", ["He"]),
        ("He ran,\n   Then stopped.", ["He", "Then"]),
    ],
)
def test_a_word_opens_where_a_sentence_may_begin(text: str, expected: list[str]):
    assert opening(text) == expected


def test_possessive_and_contracted_endings_are_taken_off_but_names_with_an_apostrophe_stay():
    assert words("Orla's cat, O'Brien's dog, Orla'll") == ["Orla", "cat", "O'Brien", "dog", "Orla"]


@pytest.mark.parametrize("heading", ["CHAPTER I. Down the Hole", "THE END OF IT", "The Long Road Home"])
def test_headings_are_left_out(heading: str):
    assert words(f"he ran\n\n{heading}\n\nthen he slept") == ["he", "ran", "then", "he", "slept"]


def test_names_pass_over_linkers_begin_after_titles_and_end_at_possessives():
    read = read_words("so he saw Lady Orla de Quenby, Orla's Pell and the Queen of Spoons")
    named = [word.fold in {"orla", "quenby", "pell", "queen", "spoons"} for word in read]
    names = [(" ".join(w.text for w in read[name.first : name.last]), name.title) for name in find_names(read, named)]
    assert names == [("Orla de Quenby", "lady"), ("Orla", None), ("Pell", None), ("Queen of Spoons", None)]


def test_a_title_alone_is_a_name_only_when_it_is_one_in_this_text():
    read = read_words("so he saw the Duchess")
    assert list(find_names(read, [False] * 5)) == []
    assert list(find_names(read, [False] * 4 + [True])) == [Name(4, 5, None)]
