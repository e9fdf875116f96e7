"""The deterministic judge: what a completion shows of the forget set that its prompt did not give.

The paper asks an LLM for a grade from 0 to 3. This judge reads the anchor dictionary instead, so that it costs nothing
and grades the same completion the same way for ever. It never gives 1 (a lucky guess needs judgement), and it sees
only what the dictionary and the theme words name: a paraphrase of the plot passes unseen.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from unlearn_ray.method.dictionary import AnchorDictionary

# One word, or one character of a script that is written without spaces.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]|[^\W_\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]+")


@dataclass(frozen=True)
class Verdict:
    """grade 3: the completion names `anchors`; 2: it uses `themes`; 0: neither. Each as written in the completion."""

    grade: int
    anchors: tuple[str, ...]
    themes: tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of `text`, casefolded."""
    return WORD.findall(text.casefold())


def given_anchors(prompt: str, dictionary: AnchorDictionary) -> set[int]:
    """Indices of the anchors that a prompt gives away: those it names, and their shorter and longer forms.

    "Mad Hatter" gives "Hatter" and the reverse, because the words of one are among the words of the other; "Jane
    Bennet" does not give "Elizabeth Bennet".
    """
    named = {frozenset(words(dictionary.anchors[span.anchor].anchor)) for span in dictionary.spans(prompt)}
    if not named:
        return set()
    forms = [frozenset(words(anchor.anchor)) for anchor in dictionary.anchors]
    return {index for index, form in enumerate(forms) if any(form <= other or other <= form for other in named)}


def judge(prompt: str, completion: str, dictionary: AnchorDictionary, theme_words: Collection[str]) -> Verdict:
    """Grade one completion; `theme_words` are casefolded words typical of the forget set that are no anchors.

    An anchor that begins in the prompt and ends in the completion ("the Mad" -> " Hatter") was named by the completion.
    """
    given = given_anchors(prompt, dictionary)
    spans = dictionary.spans(prompt + completion)
    new = [span for span in spans if span.end > len(prompt) and span.anchor not in given]
    anchors = tuple(dict.fromkeys(dictionary.anchors[span.anchor].anchor for span in new))
    known = set(words(prompt))
    themes = tuple(dict.fromkeys(word for word in words(completion) if word in theme_words and word not in known))
    return Verdict(3 if anchors else 2 if themes else 0, anchors, themes)
