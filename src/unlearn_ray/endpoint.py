"""Chat answers from any OpenAI-compatible endpoint, bounded, paced, retried and kept: each question is paid for once.

Free of Ray. What is asked and how an answer is read belongs to the caller. openai takes a second to import, so this
module is for what asks; questions.py does for the rest.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import openai
from openai import APIConnectionError, APIStatusError, APITimeoutError, DefaultHttpxClient, OpenAI

from unlearn_ray.errors import InputError
from unlearn_ray.questions import Answer, Answers, Connection, Question, Unanswered

_Form = Callable[[Question], dict[str, Any]]


def _as_schema(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


# The ways to ask for an answer of a form, until one is not turned down: OpenAI's, OpenAI's for reasoning models,
# llama.cpp's, and by words alone.
_FORMS: tuple[_Form, ...] = (
    lambda asked: {"max_tokens": asked.max_tokens, "temperature": 0.0, "response_format": _as_schema(asked.schema)},
    lambda asked: {"max_completion_tokens": asked.max_tokens, "response_format": _as_schema(asked.schema)},
    lambda asked: {
        "max_tokens": asked.max_tokens,
        "temperature": 0.0,
        "extra_body": {"response_format": {"type": "json_object", "schema": asked.schema}},
    },
    lambda asked: {"max_tokens": asked.max_tokens, "temperature": 0.0},
)


class Chat:
    """An endpoint that answers questions; safe for threads.

    What form the answer shall have is said in the first way that the server does not turn down.
    """

    def __init__(self, connection: Connection, api_key: str, answers: Answers):
        self.connection, self.answers = connection, answers
        self.client = OpenAI(
            base_url=connection.base_url,
            api_key=api_key,
            timeout=connection.timeout_s,
            max_retries=connection.attempts - 1,
            http_client=DefaultHttpxClient(event_hooks={"request": [Pace(connection.per_minute)]}),
        )
        self._form: _Form | None = None
        self._choosing = threading.Lock()

    def ask(self, question: Question) -> Answer:
        """Raises InputError where no question can be answered (no such model, a wrong key), and Unanswered where this
        one was not."""
        if known := self.answers.read(question.key):
            return Answer(**known, kept=True)
        try:
            response = self._sent(question)
        except openai.OpenAIError as error:
            raise _own_error(error, str(self.client.base_url), question.model) from error
        if not getattr(response, "choices", None):
            raise Unanswered(f"{self.client.base_url}: this is no chat endpoint: {str(response)[:200]!r}")
        answer = _answer(response)
        self.answers.write(question.key, {key: value for key, value in asdict(answer).items() if key != "kept"})
        return answer

    def _sent(self, question: Question) -> Any:
        if self._form is None:
            with self._choosing:
                if self._form is None:
                    return self._first_sent(question)
        return self._send(self.client, question, self._form)

    def _first_sent(self, question: Question) -> Any:
        """Sends in one form after another; where all are turned down, the last error is about something else."""
        once = self.client.with_options(max_retries=0)
        for form in _FORMS:
            try:
                response = self._send(once, question, form)
            except APIStatusError as error:
                if error.status_code not in (400, 404, 415, 422, 500, 501):
                    break
            except APIConnectionError:
                break
            else:
                self._form = form
                return response
        return self._send(self.client, question, _FORMS[0])

    @staticmethod
    def _send(client: OpenAI, question: Question, form: _Form) -> Any:
        return client.chat.completions.create(
            model=question.model,
            messages=list(question.messages),  # type: ignore[arg-type]
            **form(question),
        )


class Pace:
    """Holds back requests, whoever sends them, so that no more than `per_minute` start in a minute; 0 for no limit."""

    def __init__(self, per_minute: float):
        self.gap_s = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def __call__(self, request: object = None) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self.gap_s
        time.sleep(start - now)


def check_endpoint(connection: Connection, api_key: str) -> None:
    """Raises InputError for an endpoint that cannot be reached or refuses the key; asks for nothing that costs."""
    client = OpenAI(base_url=connection.base_url, api_key=api_key, timeout=10, max_retries=1)
    try:
        client.models.list()
    except APIConnectionError as error:
        raise InputError(f"{client.base_url}: cannot reach this endpoint: {error.__cause__ or error}") from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise _own_error(error, str(client.base_url), "") from error
    except openai.OpenAIError:
        pass  # not every server lists its models; this one is there


def _answer(response: Any) -> Answer:
    choice = response.choices[0]
    usage = response.usage
    refusal = getattr(choice.message, "refusal", None)
    return Answer(
        text=refusal or choice.message.content or "",
        finish="refusal" if refusal or choice.finish_reason == "content_filter" else choice.finish_reason or "stop",
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )


def _own_error(error: Exception, base_url: str, model: str) -> Exception:
    match error:
        case APITimeoutError():
            return Unanswered(f"{base_url}: no answer in time")
        case APIConnectionError():
            return Unanswered(f"{base_url}: cannot reach this endpoint: {error.__cause__ or error}")
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return InputError(f"{base_url}: the endpoint refuses the key (HTTP {error.status_code})")
        case openai.NotFoundError():
            return InputError(f"{base_url}: no such model or path, asked for {model} (HTTP 404)")
        case APIStatusError():
            return Unanswered(f"{base_url}: HTTP {error.status_code}: {' '.join(error.message.split())[:300]}")
        case _:
            return Unanswered(f"{base_url}: {error}")
