"""Decisions about terms of the dictionary: what people say of a term in its own task, and where nobody was asked about
it the marks in passages."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from unlearn_ray.config import Review
from unlearn_ray.method.dictionary import Anchor
from unlearn_ray.method.matching import Matcher
from unlearn_ray.review.answers import Answer
from unlearn_ray.review.tasks import Task
from unlearn_ray.review.voting import majority, settle

UNTRANSLATED = "an anchor without a translation: the next export asks for one"


def decide_terms(
    answers: Sequence[Answer], tasks: Mapping[str, Task], settings: Review, known: Mapping[str, Anchor]
) -> tuple[list[dict], list[dict], dict[str, dict[str, str]]]:
    """Decisions, what stays open, and the votes of the terms' own tasks.

    A decision's action: right (nothing changes), correct (kind and translation), alias (the translation of another
    term), drop, add.
    """
    asked: dict[str, dict[str, Answer]] = defaultdict(dict)
    for one in sorted(answers, key=lambda one: one.at):
        if "keep" in one.values:
            asked[tasks[one.key].facts["term"]][one.by] = one
    votes = {term: {by: one.values["keep"] for by, one in of.items()} for term, of in asked.items()}
    decisions, unsettled = [], []
    for term, action in settle(votes, settings.aggregate, settings.least_confidence).items():
        if action is None:
            unsettled.append(open_term(term, "no majority", votes[term]))
        elif problem := _detail(term, action, asked[term], decisions):
            unsettled.append(problem)
    marked = {term: of for term, of in _marked(answers, tasks).items() if term not in asked}
    for term, of in marked.items():
        action = majority({by: label for by, (label, _) in of.items()})
        by = sorted(by for by, (label, _) in of.items() if label == action)
        if action is None:
            unsettled.append(open_term(term, "marked differently", {name: label for name, (label, _) in of.items()}))
        elif action != "right":
            decisions.append({"term": term, "action": action, "by": by, "at": max(at for _, at in of.values())})
    for term, of in _new(answers, tasks, known).items():
        if term in asked:
            continue
        action = majority({by: "add" if new else "no" for by, (new, _, _) in of.items()})
        finders = {by: (generic, at) for by, (new, generic, at) in of.items() if new}
        generics = {by: generic for by, (generic, _) in finders.items() if generic}
        if action is None:
            answered = {by: "anchor" if new else "not marked" for by, (new, _, _) in of.items()}
            unsettled.append(open_term(term, "a new anchor that not all marked", answered))
        elif action == "add" and not generics:
            unsettled.append(open_term(term, UNTRANSLATED, dict.fromkeys(finders, "anchor")))
        elif action == "add" and (generic := majority(generics)) is None:
            unsettled.append(open_term(term, "several translations", generics))
        elif action == "add":
            decisions.append(
                {"term": term, "action": "add", "generic": generic, "kind": "other",
                 "by": sorted(finders), "at": max(at for _, at in finders.values())}
            )  # fmt: skip
    return [_settled(row, known.get(row["term"])) for row in decisions], unsettled, votes


def _settled(row: dict, entry: Anchor | None) -> dict:
    """A correction that changes nothing is none: what depends on the dictionary is not to run again for it."""
    same = entry and row.get("kind", entry.kind) == entry.kind and row.get("generic", entry.generic) == entry.generic
    return row | {"action": "right"} if row["action"] == "correct" and same else row


def _detail(term: str, action: str, of: Mapping[str, Answer], decisions: list[dict]) -> dict | None:
    """Adds the decision on a term to `decisions`, or returns what about it is open."""
    agreeing = {by: one for by, one in of.items() if one.values["keep"] == action}
    row = {"term": term, "action": action, "by": sorted(agreeing), "at": max(one.at for one in agreeing.values())}
    for name in {"correct": ("kind", "generic"), "alias": ("alias_of",)}.get(action, ()):
        said = {by: one.values[name] for by, one in agreeing.items() if name in one.values}
        if said and (chosen := majority(said)):
            row[name] = chosen
        elif said:
            return open_term(term, f"several answers for {name}", said)
    if action == "alias" and "alias_of" not in row:
        return open_term(term, "another name, and nobody says of which term", dict.fromkeys(agreeing, "alias"))
    decisions.append(row)
    return None


def _marked(answers: Sequence[Answer], tasks: Mapping[str, Task]) -> dict[str, dict[str, tuple[str, str]]]:
    """Term -> annotator -> (right or drop, when), from the passages in which its marks stood beforehand.

    A mark that was taken away or called an ordinary word says drop. What became part of a longer term says nothing of
    the term itself. An annotator who is of two minds has no vote.
    """
    seen: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for one in answers:
        facts = tasks[one.key].facts
        if facts["term"] is not None or "spans" not in one.values:
            continue
        marks = {(span["start"], span["end"]): span["label"] for span in one.values["spans"]}
        for span in facts["spans"]:
            start, end = span["start"], span["end"]
            longer = any(a <= start and end <= b and (a, b) != (start, end) for a, b in marks)
            label = marks.get((start, end), "part of a longer term" if longer else "ordinary word")
            if label != "part of a longer term":
                seen[span["anchor"], one.by].append(("right" if label == "anchor" else "drop", one.at))
    found: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for (term, by), labels in sorted(seen.items()):
        counts = Counter(label for label, _ in labels)
        if counts["right"] != counts["drop"]:
            found[term][by] = counts.most_common(1)[0][0], max(at for _, at in labels)
    return found


def _new(
    answers: Sequence[Answer], tasks: Mapping[str, Task], known: Mapping[str, Anchor]
) -> dict[str, dict[str, tuple[bool, str, str]]]:
    """Term -> annotator -> (marked as an anchor or not, its translation or "", when), of terms that somebody marked and
    the dictionary does not have. Who had the text before them and did not mark it has a vote too."""
    names = {*known, *(span["anchor"] for one in answers for span in tasks[one.key].facts["spans"])}
    matcher = Matcher([(name, name) for name in sorted(names)])
    marked: dict[str, dict[str, tuple[bool, str, str]]] = defaultdict(dict)
    places: dict[str, set[str]] = defaultdict(set)  # term -> tasks in which it was marked
    for one in answers:
        task = tasks[one.key]
        for span in one.values.get("spans", ()):
            term = " ".join(task.data["text"][span["start"] : span["end"]].split())
            found = matcher.spans(term) if names else ()
            is_known = any((at.start, at.end) == (0, len(term)) for at in found)
            if span["label"] == "anchor" and term and not is_known:
                places[term].add(one.key)
                _, generic, _ = marked[term].get(one.by, (True, "", ""))
                marked[term][one.by] = True, span.get("generic", "") or generic, one.at
    for term, keys in places.items():
        for one in answers:
            if one.key in keys and one.by not in marked[term]:
                marked[term][one.by] = False, "", one.at
    return marked


def open_term(term: str, why: str, answers: Mapping[str, str]) -> dict:
    return {"project": "anchors", "about": term, "why": why, "answers": dict(sorted(answers.items()))}
