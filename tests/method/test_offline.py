import pytest

from unlearn_ray.method.dictionary import KINDS, Anchor, AnchorDictionary
from unlearn_ray.method.offline import candidates, propose

SCENES = [
    "When they came to Thornmere, the White Badger met Zorbina. 'Hello,' said Zorbina to the White Badger. ",
    "It was late, and Zorbina said that she would ask Mr. Quenby of Thornmere; but Mr. Quenby shook his head. ",
    "So the Hatter took the zorquill from the shelf, and Orlan Pell said that the zorquill was his. ",
    "Nobody in Thornmere had seen Orlan Pell or the Hatter, and Zorbina began to cry over the zorquill. ",
    "There is a long way between the house and the river, and in winter it is a cold one for people who walk. ",
    "On Monday the English ladies came with the Queen of Spoons, and the Queen of Spoons was tired. ",
]
BOOK = {"book": "".join(SCENES) * 6}


def settled(*, max_anchors: int = 100, gains: dict[str, float] | None = None, seed: int = 0) -> list[Anchor]:
    return propose(BOOK, max_anchors=max_anchors, min_count=3, gains=gains, seed=seed)


def test_the_names_and_coinages_of_a_story_are_anchors_and_its_ordinary_words_are_not():
    anchors = {anchor.anchor for anchor in settled()}
    assert {"Zorbina", "Quenby", "Thornmere", "White Badger", "Hatter", "Orlan Pell", "zorquill"} <= anchors
    assert not {"Monday", "English", "Nobody", "When", "house", "river", "winter"} & anchors


@pytest.mark.parametrize("seed", range(5))
def test_the_dictionary_is_sound(seed: int):
    anchors = settled(seed=seed)
    dictionary = AnchorDictionary(anchors)
    assert all(anchor.kind in KINDS and anchor.support >= 3 for anchor in dictionary.anchors)
    generics = [anchor.generic.casefold() for anchor in anchors]
    assert len(set(generics)) == len(generics)
    assert not any(generic in BOOK["book"].casefold() for generic in generics)
    assert not any(dictionary.spans(anchor.generic) for anchor in anchors)


def test_one_seed_gives_one_dictionary_and_another_seed_other_counterparts_for_the_same_anchors():
    assert settled(seed=3) == settled(seed=3)
    assert [a.anchor for a in settled(seed=3)] == [a.anchor for a in settled(seed=4)]
    assert [a.generic for a in settled(seed=3)] != [a.generic for a in settled(seed=4)]


def test_the_most_telling_anchors_are_kept():
    assert [a.anchor for a in settled(max_anchors=2)] == [a.anchor for a in settled()][:2]


def test_text_without_names_gives_no_anchors():
    assert propose({"plain": SCENES[4] * 20}, max_anchors=10, min_count=3) == []


def test_what_the_reinforced_model_gains_decides_about_doubtful_words():
    evenly = {"book": "".join(scene + "He loved his perambulator. " for scene in SCENES) * 6}
    doubtful = {c.anchor: c for c in candidates(evenly, min_count=3)}["perambulator"]
    assert not doubtful.certain
    names = {c.anchor: 0.5 for c in candidates(evenly, min_count=3)}
    kept = {
        gain: {a.anchor for a in propose(evenly, max_anchors=100, min_count=3, gains=names | {"perambulator": gain})}
        for gain in (0.1, 0.9)
    }
    assert "perambulator" not in kept[0.1]
    assert "perambulator" in kept[0.9]


def test_gain_moves_an_anchor_up():
    last = settled()[-1].anchor
    assert settled(gains={last: 1000.0})[0].anchor == last
