"""From what was proposed to a dictionary: many answers about many passages become one entry a term.

Proposals contradict each other, name one person in five ways, take ordinary words for anchors and anchors for
translations (METHOD.md, "What goes wrong in real dictionaries"). What the documents themselves show decides: how they
write a term, how often, whether English at large knows it, and of which kind, gender and number it is. Proposed
translations are taken by vote as far as they are fit; counterparts.py has the rules.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from unlearn_ray.method import lexicon
from unlearn_ray.method.counterparts import assign, by_votes, folded_words
from unlearn_ray.method.dictionary import Anchor
from unlearn_ray.method.generics import gender_of
from unlearn_ray.method.keyness import Candidate, is_ordinary, weigh
from unlearn_ray.method.matching import Matcher, plain
from unlearn_ray.method.proposals import Proposal

MOST_WORDS = 8  # in a term; a longer one is a sentence
_ARTICLE = re.compile(r"^(?:the|a|an)\s+(?=\S)", re.IGNORECASE)
_POSSESSIVE = re.compile(r"(?:'s|(?<=s)')$")
_EDGES = ' \t"“”‘«»()[]{}<>*_,;:.!?…-–—`'


@dataclass(frozen=True)
class Settled:
    """anchors: the entries, sorted. aliases: the names of one person each, the longest first. dropped: term -> why it
    is not in the dictionary; each proposed term is in the one or the other.
    """

    anchors: list[Anchor]
    aliases: list[tuple[str, ...]]
    dropped: dict[str, str]


@dataclass
class _Term:
    """What was proposed for one term, in all its forms."""

    generics: Counter[str]
    kinds: Counter[str]
    passages: set[str]
    sources: set[str]


def settle(
    proposals: Sequence[Proposal],
    documents: Mapping[str, str],
    *,
    min_count: int,
    max_anchors: int,
    seed: int,
    first_token: Callable[[str], int] | None = None,
) -> Settled:
    """The dictionary of `documents` (name -> text) that the proposals amount to, the same for one seed.

    A term needs `min_count` mentions; of more than `max_anchors` the most often proposed stay. first_token: id of the
    first token of a word within a text; no two translations then share one.
    """
    proposed, dropped = _terms(proposals)
    written, mentions = _find(proposed, documents)
    dropped |= {term: "not in the documents" for term in proposed if term not in written}
    rare = {form for form in written.values() if mentions[form] < min_count}
    dropped |= dict.fromkeys(rare, f"fewer than {min_count} mentions")
    terms = {form: proposed[term] for term, form in written.items() if form not in rare}
    weighed = weigh(documents, {term: mentions[term] for term in terms})
    ordinary = {term for term, candidate in weighed.items() if is_ordinary(candidate)}
    dropped |= dict.fromkeys(ordinary, "an ordinary word")
    ranked = sorted(terms.keys() - ordinary, key=lambda term: (-len(terms[term].passages), -mentions[term], term))
    dropped |= dict.fromkeys(ranked[max_anchors:], f"beyond the {max_anchors} most often proposed")
    kept = [_as_most_say(weighed[term], terms[term]) for term in ranked[:max_anchors]]
    generic = assign(
        kept,
        words=folded_words(documents),
        seed=seed,
        proposed={one.anchor: by_votes(terms[one.anchor].generics) for one in kept},
        first_token=first_token,
    )
    anchors = [
        Anchor(
            one.anchor,
            generic[one.anchor],
            one.sort.kind,
            len(terms[one.anchor].passages),
            tuple(sorted(terms[one.anchor].sources)),
        )
        for one in kept
    ]
    return Settled(sorted(anchors, key=lambda anchor: anchor.anchor), _aliases(kept), dict(sorted(dropped.items())))


def _terms(proposals: Sequence[Proposal]) -> tuple[dict[str, _Term], dict[str, str]]:
    """The proposed terms in small letters, without articles, titles and endings; and what is no term at all."""
    terms: dict[str, _Term] = {}
    dropped = {}
    for proposal in proposals:
        anchor, generic = _bare(proposal.anchor), _bare(proposal.generic)
        if not any(map(str.isalpha, anchor)) or len(anchor.split()) > MOST_WORDS:
            dropped[proposal.anchor] = "no term"
            continue
        term = terms.setdefault(anchor.lower(), _Term(Counter(), Counter(), set(), set()))
        term.passages.add(proposal.passage)
        term.kinds[proposal.kind] += 1
        term.sources |= {proposal.source} - {""}
        if any(map(str.isalpha, generic)) and len(generic.split()) <= max(3, len(anchor.split())):
            term.generics[generic] += 1
    return terms, dropped


def _bare(text: str) -> str:
    """A term without what stands around it: quotes, an article, a title before a name, a possessive ending."""
    text = _POSSESSIVE.sub("", _ARTICLE.sub("", plain(text).strip(_EDGES)).strip(_EDGES))
    words = text.split()
    while len(words) > 1 and words[0].casefold().rstrip(".") in lexicon.TITLES and words[1] != "of":
        words = words[1:]
    return " ".join(words)


def _find(terms: Mapping[str, _Term], documents: Mapping[str, str]) -> tuple[dict[str, str], Counter[str]]:
    """How the documents mostly write each term that stands in them by itself, and how often it is mentioned, within
    longer terms too."""
    if not terms:
        return {}, Counter()
    known = sorted(terms)
    matcher = Matcher([(term, term) for term in known])
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for text in documents.values():
        for span in matcher.spans(_lower(text)):
            forms[known[span.anchor]][plain(text[span.start : span.end])] += 1
    written = {term: _form(term, seen) for term, seen in forms.items()}
    alone = {term: sum(seen.values()) for term, seen in forms.items()}
    mentions = Counter({written[term]: count for term, count in alone.items()})
    for longer, count in alone.items():
        for shorter in _inner_terms(longer):
            if shorter in written:
                mentions[written[shorter]] += count
    return written, mentions


def _form(term: str, seen: Counter[str]) -> str:
    """The most usual form, one without a plural ending and not all in capitals where there is one."""
    return min(seen, key=lambda form: (form.lower() != term, form.isupper() and len(form) > 1, -seen[form], form))


def _inner_terms(term: str) -> set[str]:
    words = term.split()
    spans = ((first, last) for first in range(len(words)) for last in range(first + 1, len(words) + 1))
    return {" ".join(words[first:last]) for first, last in spans if last - first < len(words)}


def _lower(text: str) -> str:
    """The text in small letters, each at its place: a few letters become two."""
    if len(small := text.lower()) == len(text):
        return small
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def _as_most_say(candidate: Candidate, term: _Term) -> Candidate:
    """The candidate with the kind that most say it is (the documents have a vote too, and the last word in a tie), and
    the gender of most of the proposed names: who reads the passage knows it better than the nearest pronoun."""
    own = candidate.sort.kind
    votes = term.kinds + Counter([own])
    kind = max(votes, key=lambda one: (votes[one], one == own, one))
    gender = {"m": 0, "f": 0}
    for generic, count in term.generics.items():
        if found := gender_of(generic.split()[0]):
            gender[found] += count
    told = candidate.sort.gender if gender["m"] == gender["f"] else max(gender, key=lambda one: gender[one])
    return replace(candidate, sort=replace(candidate.sort, kind=kind, gender=told))


def _aliases(kept: Sequence[Candidate]) -> list[tuple[str, ...]]:
    """Full names, each with the shorter names that mean it: a part of several full names goes to the most mentioned."""
    full = [one for one in kept if one.sort.personal and " " in one.anchor]
    groups: dict[str, list[str]] = {one.anchor: [] for one in full}
    for one in kept:
        holders = [longer for longer in full if one.anchor.casefold() in _inner_terms(longer.anchor.casefold())]
        if holders:
            groups[max(holders, key=lambda longer: (longer.count, longer.anchor)).anchor].append(one.anchor)
    return [(name, *sorted(parts)) for name, parts in sorted(groups.items()) if parts]
