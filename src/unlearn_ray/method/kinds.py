"""What a name names, and of which gender and number, judged by the words around its mentions.

No tagger and no gazetteer: a title, a verb of saying and the pronouns that follow tell a person and the gender, an
"in" or "at" without an article tells a place. Only kind, gender and number matter here, since they decide which
generic counterpart keeps the sentence grammatical.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wordfreq import word_frequency

from unlearn_ray.method import lexicon
from unlearn_ray.method.generics import FEMININE_NAMES, MASCULINE_NAMES
from unlearn_ray.method.mentions import Name, Word

CREATURES_AND_PLURALS = lexicon.CREATURES | {creature + "s" for creature in lexicon.CREATURES}
PRONOUN_WINDOW = 12  # words after a mention in which a pronoun is taken to mean it


@dataclass(frozen=True)
class Sort:
    """kind: one of dictionary.KINDS. gender: "m", "f" or "". form: "given" or "family" name of a person, "common" for
    a word that takes an article ("the Hatter"), "proper" otherwise."""

    kind: str
    gender: str = ""
    plural: bool = False
    form: str = "proper"

    @property
    def personal(self) -> bool:
        """Whether it is somebody's name, each word of which is a name too."""
        return self.kind == "person" and self.form != "common"


def cues(words: list[Word], name: Name, run: Name) -> Iterator[str]:
    """What one mention shows of its name; `run` is the longest run of capitalised words it stands in."""
    yield "mention"
    before = words[run.first - 1] if run.first > 0 else None
    after = words[run.last] if run.last < len(words) else None
    alone = run.last - run.first == 1
    if run.title:
        yield from _title_cues(run.title, alone)
    if not alone:
        yield (
            "first of several" if name.first == run.first else "last of several" if name.last == run.last else "inner"
        )
    if before is not None and run.title is None and name.first == run.first:
        # in "the Boscombe Valley" the article is the valley's
        if before.fold in lexicon.ARTICLES and name.last == run.last and not (after and after.capital and after.joined):
            yield "article"
        elif before.text in lexicon.PLACE_PREPOSITIONS and words[run.first].joined:
            yield "place preposition"
    if (after is not None and after.text in lexicon.SPEECH_VERBS) or (before and before.text in lexicon.SPEECH_VERBS):
        yield "speech"
    if words[name.last - 1].possessive:
        yield "possessive"
    elif name.last < len(words) and words[name.last].capital and words[name.last].fold in lexicon.PLACE_NOUNS:
        yield "before place noun"
    if name.first > run.first and words[name.first - 1].text == "of":
        yield "after of"
    yield from _pronoun_cue(words, run.last)


def _title_cues(title: str, alone: bool) -> Iterator[str]:
    yield "title"
    if gender := title_gender(title):
        yield "masculine title" if gender == "m" else "feminine title"
    if alone:
        yield ("given-name title" if title in lexicon.GIVEN_NAME_TITLES else "family-name title")


def _pronoun_cue(words: list[Word], at: int) -> Iterator[str]:
    """The first pronoun after the mention counts, unless another capitalised word comes between."""
    for word in words[at : at + PRONOUN_WINDOW]:
        if word.fold in lexicon.MASCULINE_PRONOUNS:
            yield "he"
        elif word.fold in lexicon.FEMININE_PRONOUNS:
            yield "she"
        elif not word.capital or word.opens:
            continue
        return


def judge(folded: Sequence[str], seen: Counter[str]) -> Sort:
    """The sort of a name from its folded words and the cues of all its mentions."""
    head, mentions = folded[-1], seen["mention"]
    gender = _gender(folded[0], seen)
    given_name = _is_given_name(folded[0])
    common = seen["article"] > (0.6 if given_name else 0.3) * mentions
    form = "common" if common else "proper"
    plural = common and is_plural(head)
    if folded[0] in lexicon.TITLES and (len(folded) == 1 or "of" in folded):
        return Sort("title", title_gender(folded[0]) or gender, plural, "common")
    if head in lexicon.PLACE_NOUNS and not seen["family-name title"]:
        return Sort("place", "", plural, form)
    if head in CREATURES_AND_PLURALS and not seen["family-name title"] and (common or not given_name):
        return Sort("creature", "", plural, form)
    if seen["after of"] > 0.6 * mentions and not seen["speech"]:
        return Sort("other", "", True) if is_plural(head) else Sort("place")
    personal = seen["speech"] + seen["title"] + seen["possessive"]
    placed = 2 * (seen["place preposition"] + seen["before place noun"]) + mentions * head.endswith(
        lexicon.PLACE_ENDINGS
    )
    if not given_name and placed > max(0.4 * mentions, 1.5 * personal):
        return Sort("place", "", plural)
    spoken = seen["speech"] + seen["title"] >= 0.08 * mentions
    if common:
        person = spoken or seen["he"] >= 0.3 * mentions or head.endswith(lexicon.ROLE_ENDINGS)
        return Sort("person", gender, plural, "common") if person else Sort("object", "", plural, "common")
    if given_name or spoken or personal + seen["he"] + seen["she"] >= 0.3 * mentions:
        return Sort("person", gender, False, _name_form(folded, seen))
    return Sort("other")


def lower_case_sort(word: str) -> Sort:
    """The sort of a common noun, by its form alone."""
    if word in CREATURES_AND_PLURALS:
        return Sort("creature", "", is_plural(word), "common")
    kind = "person" if word.endswith(("eer", "man", "men")) else "object"
    return Sort(kind, "", is_plural(word), "common")


def is_plural(word: str) -> bool:
    """Whether the word is the plural of a word that English uses at least half as often (hearts, but not James or
    Holmes)."""
    if not word.endswith("s") or word.endswith("ss") or len(word) < 4:
        return False
    return word_frequency(word[:-1], "en") > 0.5 * word_frequency(word, "en")


def _is_given_name(word: str) -> bool:
    return word.capitalize() in MASCULINE_NAMES or word.capitalize() in FEMININE_NAMES


def title_gender(title: str) -> str:
    """ "m", "f" or "" for a folded title."""
    return "m" if title in lexicon.MASCULINE_TITLES else "f" if title in lexicon.FEMININE_TITLES else ""


def _gender(first: str, seen: Counter[str]) -> str:
    """Titles weigh most; then what general English uses the name for; then the pronouns that follow."""
    masculine = 5 * seen["masculine title"] + seen["he"]
    feminine = 5 * seen["feminine title"] + seen["she"]
    if not seen["masculine title"] + seen["feminine title"]:
        if first.capitalize() in MASCULINE_NAMES:
            return "m"
        if first.capitalize() in FEMININE_NAMES:
            return "f"
    if masculine == feminine:
        return ""
    return "m" if masculine > feminine else "f"


def _name_form(folded: Sequence[str], seen: Counter[str]) -> str:
    if len(folded) > 1:
        return "full"
    family = seen["family-name title"] + seen["last of several"]
    given = seen["given-name title"] + seen["first of several"]
    if _is_given_name(folded[0]):
        return "family" if family > 2 * given and family > 0.6 * seen["mention"] else "given"
    return "family" if family > given else "given"
