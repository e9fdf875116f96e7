"""The anchor dictionary: each term idiosyncratic to the forget set, and the generic translation that stands in for
it.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from unlearn_ray.errors import InputError
from unlearn_ray.method.matching import Matcher, Span, plain

KINDS = ("person", "place", "organisation", "creature", "object", "title", "expression", "other")
_SHOWN = 5  # entries named in an error message


@dataclass(frozen=True)
class Anchor:
    """One entry: `generic` replaces `anchor`. support: in how many passages it was seen; sources: who proposed it."""

    anchor: str
    generic: str
    kind: str = "other"
    support: int = 0
    sources: tuple[str, ...] = ()
    status: str = "proposed"

    def __str__(self) -> str:
        return f"{self.anchor} -> {self.generic}"


@dataclass(frozen=True)
class Fault:
    """Entries that make a dictionary unusable, all for one reason."""

    name: str
    reason: str
    entries: tuple[str, ...]


class AnchorDictionary:
    """A sound dictionary, and where its anchors stand in a text (matching.py has the rules).

    Whitespace inside an anchor or a generic translation is read as one space, and entries are kept sorted. Raises
    InputError, which names `source` and the entries, for a dictionary with no entries or with any of find_faults.
    """

    def __init__(self, anchors: Iterable[Anchor], source: str = "the anchor dictionary"):
        entries = [replace(a, anchor=_one_spaced(a.anchor), generic=_one_spaced(a.generic)) for a in anchors]
        if not entries:
            raise InputError(f"{source} has no entries: at least one anchor and its generic translation are needed")
        if faults := find_faults(entries):
            raise InputError(f"{source}: " + "; ".join(map(_in_words, faults)) + ". Correct or remove these entries")
        self.anchors = tuple(sorted(entries, key=lambda entry: entry.anchor))
        self._matcher = _matcher(self.anchors)

    def spans(self, text: str) -> list[Span]:
        """The anchors in `text`, leftmost-longest and in order; a span's `anchor` is an index into `anchors`."""
        return self._matcher.spans(text)

    # The automaton is rebuilt rather than pickled: that takes milliseconds and depends on no library's format.
    def __reduce__(self) -> tuple[type["AnchorDictionary"], tuple[tuple[Anchor, ...]]]:
        return AnchorDictionary, (self.anchors,)

    def to_jsonl(self) -> str:
        """One JSON object a line, sorted by anchor, as from_jsonl reads it."""
        return "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in self.anchors)

    @classmethod
    def from_jsonl(cls, text: str, source: str) -> "AnchorDictionary":
        """The dictionary in `text`; `source` is its name in error messages. Raises InputError as read_entries and
        __init__ do.
        """
        return cls(read_entries(text, source), source)


def read_entries(text: str, source: str) -> list[Anchor]:
    """The entries of a JSONL text as they stand there, sound together or not: what `anchors check` looks at.

    Raises InputError that names `source` and the line for what is not JSON, lacks or adds a field, or has a wrong type.
    """
    # Not splitlines(): a JSON string may hold U+2028 as it is.
    lines = enumerate(text.split("\n"), start=1)
    return [_read_entry(line, f"{source}, line {number}") for number, line in lines if line.strip()]


def find_faults(entries: Sequence[Anchor]) -> list[Fault]:
    """What makes `entries` unusable as one dictionary: each kind of fault once, with the entries that have it."""
    empty = [e for e in entries if not e.anchor.strip() or not e.generic.strip()]
    filled = [e for e in entries if e not in empty]
    identities = [e for e in filled if plain(e.anchor).casefold() == plain(e.generic).casefold()]
    differing = [e for e in filled if e not in identities]
    matcher = _matcher(filled)
    chains = [
        f"{e} (has {filled[spans[0].anchor].anchor})" for e in differing if (spans := matcher.spans(plain(e.generic)))
    ]
    found = [
        Fault("empty", "no anchor or no generic translation", tuple(map(str, empty))),
        Fault("identity", "the translation is the anchor itself", tuple(map(str, identities))),
        Fault("duplicate", "one anchor given more than once", _duplicates(filled)),
        Fault("chain", "the translation is or contains an anchor", tuple(chains)),
    ]
    return [fault for fault in found if fault.entries]


def _duplicates(entries: Sequence[Anchor]) -> tuple[str, ...]:
    generics: dict[str, list[str]] = {}
    for entry in entries:
        generics.setdefault(unicodedata.normalize("NFC", plain(entry.anchor)), []).append(entry.generic)
    return tuple(f"{anchor} -> {' | '.join(given)}" for anchor, given in generics.items() if len(given) > 1)


def _matcher(entries: Sequence[Anchor]) -> Matcher:
    return Matcher([(entry.anchor, entry.generic) for entry in entries])


def _in_words(fault: Fault) -> str:
    more = f" and {len(fault.entries) - _SHOWN} more" if len(fault.entries) > _SHOWN else ""
    return f"{fault.reason}: {', '.join(fault.entries[:_SHOWN])}{more}"


def _one_spaced(text: str) -> str:
    return " ".join(text.split())


def _read_entry(line: str, place: str) -> Anchor:
    expected = 'expected an object such as {"anchor": "Hogwarts", "generic": "Mystic Academy"}'
    try:
        given: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON ({error}); {expected}") from error
    if not isinstance(given, dict):
        raise InputError(f"{place}: {line.strip()[:60]} is not an object; {expected}")
    if missing := {"anchor", "generic"} - given.keys():
        raise InputError(f"{place}: no field {' or '.join(sorted(missing))}; {expected}")
    known = [field.name for field in fields(Anchor)]
    if unknown := sorted(given.keys() - set(known)):
        raise InputError(f"{place}: unknown field {', '.join(unknown)}; the fields are {', '.join(known)}")
    if wrong := [name for name, value in given.items() if not _fits(name, value)]:
        name = wrong[0]
        raise InputError(
            f"{place}: {name} is {json.dumps(given[name], ensure_ascii=False)}; expected {_EXPECTED[name]}"
        )
    given["sources"] = tuple(given.get("sources", ()))
    return Anchor(**given)


_EXPECTED = {
    "anchor": "a text",
    "generic": "a text",
    "kind": f"one of {', '.join(KINDS)}",
    "support": "a whole number, 0 or more",
    "sources": "a list of texts",
    "status": "a text",
}


def _fits(name: str, value: Any) -> bool:
    if name == "kind":
        return value in KINDS
    if name == "support":
        return type(value) is int and value >= 0
    if name == "sources":
        return isinstance(value, list) and all(isinstance(source, str) for source in value)
    return isinstance(value, str)
