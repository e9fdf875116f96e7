"""Anchor terms as a language model proposes them: what it is asked, and what its answer is taken to say."""

from dataclasses import dataclass

from unlearn_ray.method.answers import Message, Unreadable, json_objects
from unlearn_ray.method.dictionary import KINDS

PROMPT_VERSION = 1  # raise it with every change of what is asked: old answers are then no longer taken for new ones

SCHEMA = {
    "type": "object",
    "properties": {
        "anchors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "anchor": {"type": "string"},
                    "generic": {"type": "string"},
                    "kind": {"type": "string", "enum": list(KINDS)},
                },
                "required": ["anchor", "generic", "kind"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["anchors"],
    "additionalProperties": False,
}

_TASK = f"""\
You read a passage of a larger work and list its anchor terms: the names, coined words and expressions that belong to \
this work and that a reader who does not know it would not expect. For each you give a generic translation: what could \
stand in its place in a story that has nothing to do with this work.

- Take names of persons, places, organisations, creatures and objects that the work invented or made its own, titles, \
and its spells and sayings. Leave out ordinary words, real places and persons of the real world, and numbers and days.
- Copy an anchor exactly as the passage writes it, without "the" in front and without a possessive ending.
- A generic translation has the same kind, gender and number as its anchor and fits the same sentences. It is neither \
the anchor nor any other name of the work. One anchor has one translation; a person's first and last name are \
translated the same wherever they occur.
- kind is one of: {", ".join(KINDS)}. An expression is a spell, a saying or a coined word.

Answer with JSON alone, of this form, with an empty list where the passage has no anchor terms:
{{"anchors": [{{"anchor": "Tessaly Morn", "generic": "Clara Webb", "kind": "person"}}, \
{{"anchor": "Quennor", "generic": "Fairhaven", "kind": "place"}}]}}"""


@dataclass(frozen=True)
class Proposal:
    """One anchor term with its generic translation. passage: where it was seen, any name that tells passages apart;
    source: who proposed it."""

    anchor: str
    generic: str
    kind: str = "other"
    passage: str = ""
    source: str = ""


def question(passage: str) -> list[Message]:
    """The chat messages that ask for the anchor terms of a passage."""
    return [{"role": "system", "content": _TASK}, {"role": "user", "content": f"The passage:\n\n{passage}"}]


def read_answer(text: str) -> list[Proposal]:
    """The proposals of an answer, which may stand between prose or in a fence. Raises Unreadable."""
    objects = list(json_objects(text))
    entries = next((given["anchors"] for given in objects if "anchors" in given), objects)
    if entries is objects or not isinstance(entries, list):
        raise Unreadable('no JSON object with a list under "anchors"', [p for p in map(read_entry, objects) if p])
    read = [proposal for proposal in map(read_entry, entries) if proposal]
    if len(read) < len(entries):
        raise Unreadable(f"{len(entries) - len(read)} entries without the texts anchor and generic", read)
    return read


def read_entry(entry: object) -> Proposal | None:
    """One proposal from parsed JSON; None without the texts anchor and generic."""
    if not isinstance(entry, dict):
        return None
    anchor, generic, kind = (entry.get(key) for key in ("anchor", "generic", "kind"))
    if not (isinstance(anchor, str) and isinstance(generic, str) and anchor.strip() and generic.strip()):
        return None
    return Proposal(anchor, generic, kind if isinstance(kind, str) and kind in KINDS else "other")
