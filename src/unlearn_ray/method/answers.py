"""The answers of language models: the JSON that stands in them, and how one that cannot be read is asked for again."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, str]  # role, content

_AGAIN = "This cannot be read ({problem}). Answer the same question again, with JSON of the given form alone."


class Unreadable(ValueError):
    """An answer that is not of the form that was asked for; `rest` is what of it can be read all the same."""

    def __init__(self, problem: str, rest: Any = None):
        super().__init__(problem)
        self.rest = rest


def asked_again(messages: Sequence[Message], answer: str, problem: str) -> list[Message]:
    """The chat messages that ask the question of `messages` once more after an answer that cannot be read."""
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": _AGAIN.format(problem=problem)},
    ]


def json_objects(text: str) -> Iterator[dict]:
    """The whole JSON objects in a text, from left to right; those inside one that is not whole count too."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            yield value
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        at = text.find("{", end)
