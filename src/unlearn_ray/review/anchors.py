"""The project "anchor terms": decisions about terms of the dictionary, and passages in which people correct the marks.

A term's task shows it with its translation and one of its mentions. Those come first that matter most: many mentions
times much doubt.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import regex
from wordfreq import zipf_frequency

from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.matching import Matcher, Span, plain
from unlearn_ray.method.passages import draw_passages
from unlearn_ray.review.tasks import Task, make_task

CHOICES = [
    {"value": "Right as it is", "alias": "right", "hotkey": "1"},
    {"value": "Correct it", "alias": "correct", "hotkey": "2"},
    {"value": "Not an anchor", "alias": "drop", "hotkey": "3"},
    {"value": "Another name of", "alias": "alias", "hotkey": "4"},
]
SPAN_LABELS = ("anchor", "ordinary word", "part of a longer term")
AROUND = 180  # characters on either side of a mention
ORDINARY_ZIPF = 4.5  # of a gold word: "garden", which no forget set has for itself
MOST_MENTIONS = 40  # of a gold word: "said" would be too easy
_WORD = regex.compile(r"\p{L}+")


def doubts(dictionary: AnchorDictionary) -> list[float]:
    """For each entry, from 0 (nobody needs to look) to 1, how likely something is wrong with it.

    The usual mistakes of dictionaries: ordinary words taken for anchors, entries that one source saw once, one
    translation for several anchors, words that are only part of a name.
    """
    entries = dictionary.anchors
    generics = Counter(plain(entry.generic).casefold() for entry in entries)
    parts = Counter(word for entry in entries for word in {*plain(entry.anchor).split()})
    found = []
    for entry in entries:
        words = plain(entry.anchor).split()
        ordinary = min(max((min(zipf_frequency(word, "en") for word in words) - 3) / 3, 0), 1)
        found.append(
            min(
                0.4 * ordinary
                + 0.2 * (len(entry.sources) < 2)
                + 0.2 * (entry.support < 2)
                + 0.2 * (generics[plain(entry.generic).casefold()] > 1)
                + 0.1 * (entry.kind == "other")
                + 0.1 * (len(words) == 1 and parts[words[0]] > 1),
                1.0,
            )
        )
    return found


def anchor_tasks(
    forget_set: str,
    dictionary: AnchorDictionary,
    documents: Mapping[str, str],
    *,
    terms: int,
    passages: int,
    passage_characters: int,
    gold: int,
    seed: int,
    wanting: Sequence[str] = (),
) -> tuple[list[Task], list[Task]]:
    """The tasks, most important first, and the gold tasks. wanting: terms that people marked and nobody has translated
    yet; they come before all others."""
    mentions: dict[int, list[tuple[str, Span]]] = {}
    for text in documents.values():
        for span in dictionary.spans(text):
            mentions.setdefault(span.anchor, []).append((text, span))
    weights = [doubt * len(mentions.get(at, ())) for at, doubt in enumerate(doubts(dictionary))]
    order = sorted((at for at in mentions if weights[at] > 0), key=lambda at: (-weights[at], at))
    asked = [_new_term(forget_set, term, documents, dictionary) for term in wanting]
    for at in order[:terms]:
        text, span = mentions[at][len(mentions[at]) // 2]
        asked.append(
            _about(forget_set, dictionary.anchors[at], len(mentions[at]), _around(text, span), dictionary, None)
        )
    shown = draw_passages(documents, count=passages, characters=passage_characters, seed=seed)
    found = [(one.text.strip(), dictionary.spans(one.text.strip())) for one in shown]
    found.sort(key=lambda one: -sum(weights[anchor] for anchor in {span.anchor for span in one[1]}))
    question = "Correct and complete the marks: what belongs to this work alone?"
    asked += [_task(forget_set, question, [], text, None, None, dictionary) for text, _ in found]
    known = _gold_words(dictionary, documents, gold)
    return [task for task in asked if task], [
        _about(forget_set, entry, count, text, dictionary, "drop") for entry, count, text in known
    ]


def _new_term(forget_set: str, term: str, documents: Mapping[str, str], dictionary: AnchorDictionary) -> Task | None:
    """The task of a term that is in no dictionary yet; none where the documents do not have it."""
    found = [(text, span) for text in documents.values() for span in Matcher([(term, term)]).spans(text)]
    if not found:
        return None
    question = f"{term} → ? (marked by people, {_mentions(len(found))}): choose 2 and translate it, or 3"
    return _task(forget_set, question, CHOICES, _around(*found[0]), term, None, dictionary)


def _about(
    forget_set: str, entry: Anchor, count: int, text: str, dictionary: AnchorDictionary, gold: str | None
) -> Task:
    question = f"{entry.anchor} → {entry.generic} ({entry.kind}, {_mentions(count)})"
    filled = [
        {"id": "kind", "from_name": "kind", "to_name": "text", "type": "choices", "value": {"choices": [entry.kind]}},
        {"id": "generic", "from_name": "generic", "to_name": "text", "type": "textarea",
         "value": {"text": [entry.generic]}},
    ]  # fmt: skip
    return _task(forget_set, question, CHOICES, text, entry.anchor, gold, dictionary, filled)


def _task(
    forget_set: str,
    question: str,
    choices: list[dict],
    text: str,
    term: str | None,
    gold: str | None,
    dictionary: AnchorDictionary,
    filled: Sequence[dict] = (),
) -> Task:
    spans = [
        {"start": span.start, "end": span.end, "anchor": dictionary.anchors[span.anchor].anchor}
        for span in dictionary.spans(text)
    ]
    marks = [
        {"id": f"m{at}", "from_name": "span", "to_name": "text", "type": "labels",
         "value": {"start": span["start"], "end": span["end"], "text": text[span["start"] : span["end"]],
                   "labels": ["anchor"]}}
        for at, span in enumerate(spans)
    ]  # fmt: skip
    facts = {"term": term, "spans": spans} | ({"gold": gold} if gold else {})
    return make_task(
        "anchors", forget_set, {"question": question, "choices": choices, "text": text}, facts, [*filled, *marks]
    )


def _mentions(count: int) -> str:
    return f"{count} mention{'s' if count > 1 else ''}"


def _around(text: str, span: Span) -> str:
    """A mention with its surroundings, from one space to another."""
    start, end = max(span.start - AROUND, 0), min(span.end + AROUND, len(text))
    if start:
        start = text.find(" ", start, span.start) + 1 or span.start
    if end < len(text):
        end = max(text.rfind(" ", span.end, end), span.end)
    return text[start:end].strip()


def _gold_words(
    dictionary: AnchorDictionary, documents: Mapping[str, str], count: int
) -> list[tuple[Anchor, int, str]]:
    """Ordinary words of the documents dressed up as entries: whoever keeps one was not reading."""
    texts = list(documents.values())
    seen = Counter(word for text in texts for word in _WORD.findall(text) if word.islower() and len(word) > 4)
    words = [
        word
        for word, mentions in seen.most_common(5000)
        if mentions <= MOST_MENTIONS and zipf_frequency(word, "en") >= ORDINARY_ZIPF and not dictionary.spans(word)
    ][: 2 * count]
    found = []
    for word, generic in zip(words[:count], words[count:], strict=False):
        text, span = next((text, span) for text in texts for span in Matcher([(word, word)]).spans(text))
        found.append((Anchor(word, generic, "object"), seen[word], _around(text, span)))
    return found
