"""Questions for a language model, and their answers: what is known of them without a client (endpoint.py)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from unlearn_ray.errors import StepFailed
from unlearn_ray.method.answers import Message


class Unanswered(StepFailed):
    """A question that was sent as often as it may be and has no answer."""


@dataclass(frozen=True)
class Connection:
    """Where and how fast to ask. base_url: None for OpenAI's own. per_minute: requests, repeated ones included; 0 for
    no limit. attempts: how often a question is sent before it is given up; between them the client waits as long as
    the server's Retry-After says (up to two minutes), or longer each time. timeout_s: for one attempt.
    """

    base_url: str | None
    at_once: int
    per_minute: float
    attempts: int
    timeout_s: float


@dataclass(frozen=True)
class Question:
    """What is asked; equal questions have one answer. schema: JSON schema of the answer."""

    model: str
    messages: tuple[Message, ...]
    schema: dict[str, Any]
    max_tokens: int

    @property
    def key(self) -> str:
        canonical = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """finish: why the model stopped ("stop", "length", ...), or "refusal". Tokens as the server counted them, 0 where
    it does not; kept: it was answered before, and cost nothing now."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    kept: bool = False


class Answers(Protocol):
    """Where answers are kept: by Question.key, as JSON."""

    def read(self, key: str) -> dict | None: ...

    def write(self, key: str, answer: dict) -> None: ...


def estimate_tokens(messages: Sequence[Message]) -> int:
    """About how many tokens a question has: four characters to one, as English has in the usual tokenizers."""
    return sum(len(message["content"]) for message in messages) // 4
