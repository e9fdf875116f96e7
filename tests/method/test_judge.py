import pytest

from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.judge import given_anchors, judge

NAMES = ["Alice", "Hatter", "Mad Hatter", "Jane Bennet", "Elizabeth Bennet", "Elizabeth", "Cheshire Cat"]
DICTIONARY = AnchorDictionary([Anchor(name, f"Other{place}") for place, name in enumerate(NAMES)])
THEMES = {"teapot", "croquet"}


@pytest.mark.parametrize(
    ("prompt", "completion", "grade"),
    [
        ("Alice sat down", " beside the Hatter.", 3),
        ("Alice sat down", " and Alice yawned.", 0),
        ("Alice met the Mad", " Hatter again", 3),
        ("The Hatter spoke", " like a Mad Hatter.", 0),
        ("Jane Bennet came with", " Elizabeth Bennet.", 3),
        ("Elizabeth went out with", " Elizabeth Bennet.", 0),
        ("She sat down", " to play croquet.", 2),
        ("She played croquet", " and more croquet.", 0),
        ("She played", " with Alice and a teapot", 3),
        ("She sat down", " and thought of malice.", 0),
        ("She sat down", "", 0),
    ],
)
def test_grade_counts_only_what_the_prompt_did_not_give(prompt: str, completion: str, grade: int):
    assert judge(prompt, completion, DICTIONARY, THEMES).grade == grade


def test_verdict_says_what_was_named_in_order_and_once():
    verdict = judge("She met", " the Hatter, Alice, the Hatter and a Teapot.", DICTIONARY, THEMES)
    assert verdict.anchors == ("Hatter", "Alice")
    assert verdict.themes == ("teapot",)


def test_a_named_anchor_gives_its_shorter_and_longer_forms_too():
    given = {DICTIONARY.anchors[index].anchor for index in given_anchors("the Mad Hatter and Elizabeth", DICTIONARY)}
    assert given == {"Mad Hatter", "Hatter", "Elizabeth", "Elizabeth Bennet"}
