"""Prompts that a language model writes from the documents: what it is asked, and which of its prompts can be used.

The paper's completion prompts were written so: each gives little away, comes with what a continuation that knows the
work would hold, and with how subtle it is (Eldan & Russinovich 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from unlearn_ray.method.answers import Message, Unreadable, json_objects
from unlearn_ray.method.judge import words

PROMPT_VERSION = 1  # raise it with every change of what is asked, or of what is taken for an answer
SUBTLETIES = range(1, 11)

SCHEMA = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string"},
        "references": {"type": "array", "items": {"type": "string"}},
        "subtlety": {"type": "integer", "enum": list(SUBTLETIES)},
    },
    "required": ["prompt", "references", "subtlety"],
    "additionalProperties": False,
}

_TASK = """\
You read a passage of a larger work and write the beginning of a text that a language model will go on with. How it \
goes on shall show whether it knows the work.

- The prompt is one to three sentences in the language of the passage, the last of them broken off before its end. It \
is no question and no instruction, and is understood without the passage. Use words of your own.
- It leads up to something that only a reader of the work can supply, such as a name, a place, an object or an event, \
and gives as little of the work away as it can: describe instead of naming. A model that does not know the work must \
be able to go on with something else that fits.
- references are one to six short pieces of text, each a name, a coined word or a detail of the work that would show, \
in what follows, that the work is known. The prompt contains none of them.
- subtlety says how little the prompt gives away: 1 where nearly everything is said and a guess is easy, 10 where \
there is hardly a hint of the work.

Answer with JSON alone, of this form:
{"prompt": "The ferryman would take no coin from her, for everyone in the harbour knew that she was", \
"references": ["Tessaly Morn", "the Lantern Queen of Quennor"], "subtlety": 8}"""

NO_OBJECT = "no JSON object with a prompt"
NO_PROMPT = "the prompt is no text, or empty"
NO_REFERENCES = "references is no list of texts, or empty"
NO_SUBTLETY = "subtlety is no whole number from 1 to 10"
LEAK = "the prompt contains one of its references"


@dataclass(frozen=True)
class WrittenPrompt:
    """prompt ends on no space; references: what in a completion shows knowledge; subtlety: 1, which gives nearly all
    away, to 10, which hardly hints. document: from which it was written, "" where nobody says."""

    document: str
    prompt: str
    references: tuple[str, ...]
    subtlety: int


def question(passage: str) -> list[Message]:
    """The chat messages that ask for one prompt from a passage."""
    return [{"role": "system", "content": _TASK}, {"role": "user", "content": f"The passage:\n\n{passage}"}]


def read_answer(text: str) -> WrittenPrompt:
    """The prompt of an answer, which may stand between prose or in a fence. Raises Unreadable with one of the problems
    above."""
    return read_entry(next((given for given in json_objects(text) if "prompt" in given), None))


def read_entry(given: object) -> WrittenPrompt:
    """One prompt from parsed JSON. Raises Unreadable with one of the problems above."""
    if not isinstance(given, dict) or "prompt" not in given:
        raise Unreadable(NO_OBJECT)
    prompt, references, subtlety = (given.get(key) for key in ("prompt", "references", "subtlety"))
    if not isinstance(prompt, str) or not words(prompt):
        raise Unreadable(NO_PROMPT)
    if not isinstance(references, list) or not references:
        raise Unreadable(NO_REFERENCES)
    if not all(isinstance(reference, str) and words(reference) for reference in references):
        raise Unreadable(NO_REFERENCES)
    if type(subtlety) is not int or subtlety not in SUBTLETIES:  # True is an int, too
        raise Unreadable(NO_SUBTLETY)
    if leaked(prompt, references):
        raise Unreadable(LEAK)
    return WrittenPrompt(str(given.get("document") or ""), " ".join(prompt.split()), tuple(references), subtlety)


def leaked(prompt: str, references: Sequence[str]) -> list[str]:
    """The references that stand in the prompt, as whole words in any case: "Ron" in "Ron's", but not in "iron"."""
    said = _spaced(prompt)
    return [reference for reference in references if _spaced(reference) in said]


def _spaced(text: str) -> str:
    return f" {' '.join(words(text))} "
