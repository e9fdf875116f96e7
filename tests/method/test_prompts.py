import re

from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.judge import given_anchors
from unlearn_ray.method.prompts import MAX_CHARS, MIN_CHARS, anchor_prompts, verbatim_prompts

NAMES = ["Alice", "Mad Hatter", "Hatter", "Queen of Hearts", "Dormouse", "Cheshire Cat"]
DICTIONARY = AnchorDictionary([Anchor(name, f"Other{place}") for place, name in enumerate(NAMES)])


def book(chapters: int, names: list[str], first: int = 0) -> str:
    return "\n\n".join(
        f"Chapter {n} was long and the weather was dull.\nNobody in house number {n} could say on which day "
        f"they had all sat down to tea, until somebody called for {names[n % len(names)]}, who came at {n} o'clock."
        for n in range(first, first + chapters)
    )


DOCUMENTS = {"first": book(40, NAMES), "second": book(20, ["Alice"], first=100)}


def test_prompts_end_just_before_an_anchor_that_they_do_not_give_away():
    for prompt in anchor_prompts(DOCUMENTS, DICTIONARY, 12, seed=0):
        first = DICTIONARY.spans(prompt.references[0])[0]
        assert first.start == 0
        assert first.anchor not in given_anchors(prompt.text, DICTIONARY)
        assert MIN_CHARS <= len(prompt.text) <= MAX_CHARS
        assert prompt.text in " ".join(DOCUMENTS[prompt.document].split())
        assert re.match(r"Chapter|Nobody", prompt.text), "does not begin with a sentence"


def test_prompts_cover_the_documents_evenly_and_differ():
    prompts = anchor_prompts(DOCUMENTS, DICTIONARY, 12, seed=0)
    assert len({prompt.text for prompt in prompts}) == 12
    assert [prompt.document for prompt in prompts] == ["first"] * 8 + ["second"] * 4


def test_prompts_do_not_all_ask_for_the_protagonist():
    text = book(60, ["Alice"] * 9 + ["Dormouse"])
    asked = [p.references[0].split(",")[0] for p in anchor_prompts({"book": text}, DICTIONARY, 6, seed=1)]
    assert asked.count("Dormouse") == 3


def test_same_seed_same_prompts_and_another_seed_others():
    first, again, other = (anchor_prompts(DOCUMENTS, DICTIONARY, 12, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_as_many_prompts_as_there_are_places_and_no_more():
    assert len(anchor_prompts(DOCUMENTS, DICTIONARY, 500, seed=0)) == 60
    assert anchor_prompts({"empty": "", "plain": "No name stands here."}, DICTIONARY, 5, seed=0) == []
    assert verbatim_prompts({"short": "Too short."}, 5, seed=0) == []


def test_a_title_with_a_full_stop_does_not_begin_a_sentence():
    text = "The whole company walked in the garden behind the house with Mr. Brown and asked for Alice."
    assert [prompt.text[:9] for prompt in anchor_prompts({"book": text}, DICTIONARY, 1, seed=0)] == ["The whole"]


def test_verbatim_prompts_and_references_are_the_text_as_it_stands():
    prompts = verbatim_prompts(DOCUMENTS, 9, seed=0)
    assert len(prompts) == 9
    for prompt in prompts:
        assert prompt.text + prompt.references[0] in DOCUMENTS[prompt.document]
        assert not prompt.text[-1].isspace()
        assert prompt.references[0][0].isspace(), "the passage ends within a word"
