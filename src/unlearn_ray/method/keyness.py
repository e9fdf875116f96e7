"""Candidates for anchor terms: the names of a text and its idiosyncratic words, with how key they are.

Keyness is measured against general English (wordfreq) in the two standard ways: log-likelihood, how sure the
difference is (Dunning 1993; Rayson & Garside 2000, "Comparing corpora using frequency profiling"), and log ratio,
how large it is (Hardie 2014). The reference is a list of frequencies, not a corpus with a size, so the one-sample
form of log-likelihood is used. Log ratio is kept in nats rather than in bits: it is then what the text's own
unigram model gains over general English on one occurrence, the same unit as a reinforced model's gain over its
baseline.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from wordfreq import word_frequency

from unlearn_ray.method.kinds import Sort, cues, judge, lower_case_sort, title_gender
from unlearn_ray.method.lexicon import DEMONYM_ENDINGS, FUNCTION_WORDS, NOT_ALONE, TITLES
from unlearn_ray.method.mentions import WORD, Name, Word, read_words
from unlearn_ray.method.names import Key, find_names_in, key_of, longer_entries, single_entries, tile

RARE = 1e-8  # wordfreq's large English list ends here; what it lacks is taken to be as rare as its last word
LEAST_LOG_RATIO = 2.0  # nats: seven times as frequent as in general English
LEAST_OF_GIVEN_NAME = -1.0
LEAST_OF_TITLE = 1.0
LEAST_OF_SEVERAL_WORDS = 3.84  # p < 0.05: what English has of their words together is estimated, and on the high side
RARE_NAME = 4.0
LEAST_LOG_LIKELIHOOD = 15.13  # p < 0.0001 (Rayson, Berridge & Francis 2004)

KNOWN_WORD = 1e-6  # a lower-case word as frequent as this in general English is nobody's property
LOWER_CASE_LOG_RATIO = math.log(100)
LOWER_CASE_SHARE = 1e-4  # of a text's words: less is the author's vocabulary rather than the story's
PARTS = 50  # of the text, to see whether a word belongs to some scenes or to the author's style
BURSTY = 0.65
VERBAL_ENDINGS = ("ly", "ing", "ed", "est")


@dataclass(frozen=True)
class Candidate:
    """A possible anchor.

    anchor: as the text writes it. count: its mentions, a word's inside longer names too. log_ratio: nats a mention.
    certain: False for a lower-case word that only a reinforced model's gain can tell from the author's vocabulary.
    """

    anchor: str
    count: int
    log_ratio: float
    log_likelihood: float
    sort: Sort
    certain: bool = True


@cache
def general_frequency(text: str) -> float:
    """Share of a word in general English; for several words wordfreq's estimate, which is on the high side."""
    return max(word_frequency(text, "en"), RARE)


def log_ratio(count: int, total: int, expected: float) -> float:
    """ln of the relative frequency in the text over the one expected, in nats."""
    return math.log(count / total / expected)


def log_likelihood(count: int, total: int, expected: float) -> float:
    """G2 = 2 sum O ln(O/E) over the word and all others, for `count` in `total` words against an expected share."""
    others = total - count
    surprise = others * math.log(others / total / (1 - expected)) if others else 0.0
    return 2 * (count * log_ratio(count, total, expected) + surprise)


def is_telling(candidate: Candidate, gain: float = 0.0) -> bool:
    """Whether a candidate is worth being an anchor; `gain` is a model's, in nats a token.

    A person's name needs little, since a name in a story is somebody, and a given name least. A place or a capitalised
    noun must be much and surely more frequent than in general English, which knows London and the Parliament too; of
    a name that English hardly has, one mention is enough.
    """
    worth, sort = candidate.log_ratio + gain, candidate.sort
    if sort.personal:
        return worth >= (0 if sort.form == "family" else LEAST_OF_GIVEN_NAME)
    if " " in candidate.anchor:
        return worth >= 0 and candidate.log_likelihood >= LEAST_OF_SEVERAL_WORDS
    sure = candidate.log_likelihood >= LEAST_LOG_LIKELIHOOD or (sort.form == "proper" and worth >= RARE_NAME)
    return worth >= (LEAST_OF_TITLE if sort.kind == "title" else LEAST_LOG_RATIO) and sure


def candidates(documents: Mapping[str, str], *, min_count: int) -> list[Candidate]:
    """Every name and idiosyncratic word with at least `min_count` mentions in the documents, most telling first."""
    texts = [text for _, text in sorted(documents.items())]
    read = [read_words(text) for text in texts]
    total = sum(map(len, read))
    found = [
        *_names(texts, read, total, min_count),
        *_lower_case_words(read, total, min_count),
    ]
    return sorted(found, key=lambda c: (-c.count * c.log_ratio, c.anchor))


def _names(texts: Sequence[str], read: Sequence[list[Word]], total: int, min_count: int) -> Iterator[Candidate]:
    """Words first, by all their mentions, then the longer names that no telling words make up."""
    read, runs = find_names_in(read, min_count)
    singles = _judged(texts, read, runs, single_entries(read, runs, min_count), total)
    telling = {key for key, found in singles.items() if _may_be(found) and is_telling(found)}
    longer = longer_entries(read, runs, min_count, telling)
    for key, found in _judged(texts, read, runs, telling | longer, total).items():
        last = singles.get(key[-1:])
        if key in longer and found.sort.kind in ("place", "other") and last and last.sort.kind == "person":
            found = replace(found, sort=replace(found.sort, kind="person"))
        if key in longer and found.count >= min_count and _may_be(found):
            yield found
    yield from filter(_may_be, singles.values())
    yield from _titled_names(texts, read, runs, telling, total, min_count)


def _titled_names(
    texts: Sequence[str],
    read: Sequence[list[Word]],
    runs: Sequence[Sequence[Name]],
    telling: set[Key],
    total: int,
    min_count: int,
) -> Iterator[Candidate]:
    """Names that are anybody's and somebody's with a title: "Mrs. Long", where "Long" alone says nothing."""
    forms: dict[Key, Counter[str]] = defaultdict(Counter)
    for text, words, names in zip(texts, read, runs, strict=True):
        for run in names:
            if run.title and run.last - run.first == 1 and key_of(words, run) not in telling:
                titled = replace(run, first=run.first - 1)
                if words[titled.first].fold == run.title:
                    forms[key_of(words, titled)][_as_written(text, words, titled)] += 1
    for key, seen in forms.items():
        if (count := seen.total()) >= min_count:
            written = max(seen, key=lambda form: (seen[form], form))
            sort = Sort("person", title_gender(key[0]), form="full")
            yield _candidate(written, count, total, sort)


def _may_be(found: Candidate) -> bool:
    """Demonyms ("Tahitian") and stumps that nobody is called are capitalised, but no names."""
    if found.sort.kind == "person":
        return True
    return not found.anchor.endswith(DEMONYM_ENDINGS) and (found.sort.kind != "other" or len(found.anchor) > 3)


def _judged(
    texts: Sequence[str], read: Sequence[list[Word]], runs: Sequence[Sequence[Name]], entries: set[Key], total: int
) -> dict[Key, Candidate]:
    seen: dict[Key, Counter[str]] = defaultdict(Counter)
    forms: dict[Key, Counter[str]] = defaultdict(Counter)
    for text, words, names in zip(texts, read, runs, strict=True):
        for run in names:
            for part in tile(words, run, entries):
                seen[key_of(words, part)].update(cues(words, part, run))
                forms[key_of(words, part)][_as_written(text, words, part)] += 1
    judged = {}
    for key, shown in seen.items():
        written = max(forms[key], key=lambda form: (form.casefold() == " ".join(key), forms[key][form], form))
        judged[key] = _candidate(written, shown["mention"], total, judge(key, shown))
    return judged


def _as_written(text: str, words: list[Word], name: Name) -> str:
    last = words[name.last - 1]
    return " ".join(text[words[name.first].start : last.start + len(last.text)].replace("_", "").split())


def _candidate(written: str, count: int, total: int, sort: Sort, certain: bool = True) -> Candidate:
    expected = general_frequency(written)
    ratio, likelihood = (
        log_ratio(count, total, expected),
        log_likelihood(count, total, expected),
    )
    return Candidate(written, count, ratio, likelihood, sort, certain)


def _lower_case_words(read: Sequence[list[Word]], total: int, min_count: int) -> Iterator[Candidate]:
    """Words that are rare in English and frequent here.

    Without a model to ask, only nouns count (they follow an article) that stand in a few scenes, as "croquet" does,
    while the author's favourite words are everywhere, or that English does not know at all.
    """
    places: dict[str, list[int]] = defaultdict(list)
    after_article = Counter[str]()
    in_order = [word for words in read for word in words]
    for at, (previous, word) in enumerate(zip([None, *in_order], in_order, strict=False)):
        if not word.capital and len(word.fold) > 3:
            places[word.fold].append(at * PARTS // total)
            after_article[word.fold] += previous is not None and previous.fold in (
                "the",
                "a",
                "an",
            )
    for fold in [fold for fold in places if fold.endswith("s") and fold[:-1] in places]:
        places[fold[:-1]].extend(places[fold])
        after_article[fold[:-1]] += after_article[fold]
    for fold, at in places.items():
        count, expected = len(at), general_frequency(fold)
        if (fold.endswith("s") and fold[:-1] in places) or fold.endswith(VERBAL_ENDINGS) or not fold.isalpha():
            continue
        if fold in TITLES | NOT_ALONE or count < max(2 * min_count, LOWER_CASE_SHARE * total) or expected > KNOWN_WORD:
            continue
        if log_ratio(count, total, expected) >= LOWER_CASE_LOG_RATIO:
            noun = after_article[fold] >= 0.3 * count
            own = expected == RARE or (count >= 2 * LOWER_CASE_SHARE * total and spread(at) < BURSTY)
            yield _candidate(fold, count, total, lower_case_sort(fold), certain=noun and own)


def spread(places: Sequence[int]) -> float:
    """In how many of the PARTS a word stands, over how many it would at random (1: evenly used)."""
    return len(set(places)) / (PARTS * (1 - (1 - 1 / PARTS) ** len(places)))


def weigh(documents: Mapping[str, str], mentions: Mapping[str, int]) -> dict[str, Candidate]:
    """Terms that others found, as candidates. mentions: term, as the documents write it -> how often."""
    texts = [text for _, text in sorted(documents.items())]
    read = [read_words(text) for text in texts]
    total = sum(map(len, read))
    read, runs = find_names_in(read, min_count=1)
    keys = {term: tuple(word.casefold() for word in WORD.findall(term)) for term in mentions}
    judged = _judged(texts, read, runs, set(keys.values()), total)

    def sort_of(term: str) -> Sort:
        if found := judged.get(keys[term]):
            return found.sort
        return lower_case_sort(term.split()[-1]) if term.islower() else Sort("other")

    return {term: _candidate(term, count, total, sort_of(term)) for term, count in mentions.items()}


def is_ordinary(candidate: Candidate) -> bool:
    """Whether a term belongs to English rather than to the documents: a known word in small letters, an expression of
    such words that the documents do not use far more often than others, or a capital that is English's own."""
    words = [word.casefold() for word in WORD.findall(candidate.anchor)]
    if candidate.anchor.islower():
        known = all(general_frequency(word) >= KNOWN_WORD for word in words)
        return candidate.log_ratio < LOWER_CASE_LOG_RATIO if known and len(words) > 1 else known
    if set(words) <= FUNCTION_WORDS | NOT_ALONE:
        return True
    return candidate.log_ratio < 0 if len(words) > 1 else not is_telling(candidate)
