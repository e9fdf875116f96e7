"""Questions for a language model behind an endpoint, as many as a step has: asked through Ray, read, repaired, counted.

One actor sends the requests, several at a time. Every answer is kept under the root by what was asked, so a killed step
asks for the rest only. What is asked and what an answer says belongs to the caller.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from unlearn_ray.config import Endpoint, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.engine.placement import places
from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.method.answers import Message, Unreadable, asked_again
from unlearn_ray.questions import Answer, Connection, Question, Unanswered

ASKING_CPUS = 0.5  # of the actor that asks: it waits
_ONE_STEP = threading.Lock()  # steps of several sets ask one after another: the endpoint's limits are for all of them
GIVE_UP_AFTER = 10  # questions without an answer, one after the other: the endpoint is down
# How an answer was taken. Of a partly read one what can be read is taken.
READ, REPAIRED, PARTLY, UNREADABLE = "read", "read when asked again", "partly read", "unreadable"
REFUSED, UNANSWERED = "refused", "unanswered"


@dataclass(frozen=True)
class Inquiry:
    """What the questions of a step have in common. read: an answer's text -> what it says, dataclasses or JSON; it
    raises Unreadable, and is a function of a module, since it travels to the actor."""

    model: str
    schema: dict[str, Any]
    answer_tokens: int
    read: Callable[[str], Any]

    def question(self, messages: Sequence[Message]) -> Question:
        return Question(self.model, tuple(messages), self.schema, self.answer_tokens)


@dataclass(frozen=True)
class Taken:
    """How one question was answered. found: what was read, None for nothing; ask_all gives dicts for dataclasses.
    problem: why not all was read. The counts are what it cost this time; a kept answer costs nothing."""

    outcome: str
    answer: str
    problem: str
    found: Any
    questions: int
    kept: int
    prompt_tokens: int
    completion_tokens: int


def ask_all(
    what: str, asked: Sequence[Sequence[Message]], inquiry: Inquiry, *, resources: Resources, answers: str
) -> list[Taken]:
    """Asks every question (its messages) and returns how each was answered, in the order of `asked`.

    what: the name of what is asked about, in the plural; answers: the folder where answers are kept. An answer that
    cannot be read is asked for once more. Raises StepFailed, with all answers kept, where a question has none.
    """
    arguments = {
        "connection": _connection_of(resources),
        "api_key": _read_key(resources.endpoint),
        "inquiry": inquiry,
        "answers": answers,
    }
    numbered, size = list(enumerate(asked)), 4 * resources.endpoint.requests_at_once
    shards = [json.dumps(numbered[start : start + size]) for start in range(0, len(numbered), size)]
    pool = Pool(AskShard, arguments, cpus=ASKING_CPUS, places=places(resources, "cpu"))
    with _ONE_STEP:
        taken = {row["number"]: Taken(**json.loads(row["taken"])) for row in map_shards(shards, pool)}
    if unanswered := [one.answer for one in taken.values() if one.outcome == UNANSWERED]:
        raise StepFailed(
            f"{len(unanswered)} of {len(asked)} {what} have no answer (the last: {unanswered[-1]}); "
            "the others are kept: run again to ask for these alone"
        )
    return [taken[number] for number in range(len(asked))]


def figures_of(taken: Sequence[Taken]) -> dict:
    """For the manifest: how many answers were taken in which way, and what they cost this time."""
    costs = ("questions", "kept", "prompt_tokens", "completion_tokens")
    return {
        "outcomes": dict(Counter(one.outcome for one in taken)),
        "usage": {key: sum(getattr(one, key) for one in taken) for key in costs},
    }


def write_troubles(path: str, names: Sequence[str], taken: Sequence[Taken]) -> None:
    """A line for every answer that was not simply read, beside the name of the passage that was asked about."""
    storage.write_lines(
        path,
        (
            {"passage": name, "outcome": one.outcome, "problem": one.problem, "answer": one.answer}
            for name, one in zip(names, taken, strict=True)
            if one.outcome not in (READ, REPAIRED)
        ),
    )


class AskShard:
    """Questions, as JSON of [[number, messages], ...] -> for each a row of its number and its Taken as JSON."""

    def __init__(self, connection: Connection, api_key: SecretStr, inquiry: Inquiry, answers: str):
        from unlearn_ray.endpoint import Chat

        self.chat = Chat(connection, api_key.get_secret_value(), KeptAnswers(answers))
        self.inquiry, self.at_once = inquiry, connection.at_once
        self.failures = 0

    def __call__(self, shard: pa.Table) -> pa.Table:
        numbers, asked = zip(*json.loads(shard["shard"][0].as_py()), strict=True)
        with ThreadPoolExecutor(self.at_once) as threads:
            taken = [json.dumps(asdict(one), ensure_ascii=False) for one in threads.map(self.take, asked)]
        return pa.table({"number": numbers, "taken": taken})

    def take(self, messages: list[Message]) -> Taken:
        """Asks one question. Raises StepFailed where this was the last of many without an answer."""
        given: list[Answer] = []
        try:
            outcome, text, problem, found = self._ask(messages, given)
            self.failures = 0
        except Unanswered as error:
            self.failures += 1
            if self.failures >= GIVE_UP_AFTER:
                raise StepFailed(f"{GIVE_UP_AFTER} questions in a row had no answer: {error}") from error
            outcome, text, problem, found = UNANSWERED, str(error), "", None
        now = [answer for answer in given if not answer.kept]
        return Taken(
            outcome,
            text,
            problem,
            found,
            questions=len(now),
            kept=len(given) - len(now),
            prompt_tokens=sum(answer.prompt_tokens for answer in now),
            completion_tokens=sum(answer.completion_tokens for answer in now),
        )

    def _ask(self, messages: list[Message], given: list[Answer]) -> tuple[str, str, str, Any]:
        """Outcome, answer, problem and what was found; adds every answer to `given`."""
        for last, outcome in ((False, READ), (True, REPAIRED)):
            answer = self.chat.ask(self.inquiry.question(messages))
            given.append(answer)
            if answer.finish == "refusal":
                return REFUSED, answer.text, "", None
            try:
                return outcome, answer.text, "", self.inquiry.read(answer.text)
            except Unreadable as error:
                if last:
                    return (PARTLY if error.rest else UNREADABLE), answer.text, str(error), error.rest
                messages = asked_again(messages, answer.text, str(error))
        raise AssertionError("the last round returns")


class KeptAnswers:
    """Answers as files, by the key of their question."""

    def __init__(self, folder: str):
        self.folder = folder

    def read(self, key: str) -> dict | None:
        path = self._path(key)
        return storage.read_json(path) if storage.exists(path) else None

    def write(self, key: str, answer: dict) -> None:
        storage.write_json(self._path(key), answer)

    def _path(self, key: str) -> str:
        return storage.join(self.folder, key[:2], f"{key}.json")


def check_asking(resources: Resources) -> None:
    """Raises InputError where there is no key, or no endpoint that takes it."""
    from unlearn_ray.endpoint import check_endpoint

    check_endpoint(_connection_of(resources), _read_key(resources.endpoint).get_secret_value())


def _connection_of(resources: Resources) -> Connection:
    endpoint = resources.endpoint
    return Connection(
        endpoint.base_url,
        at_once=endpoint.requests_at_once,
        per_minute=endpoint.requests_per_minute,
        attempts=endpoint.attempts,
        timeout_s=endpoint.timeout_s,
    )


def _read_key(endpoint: Endpoint) -> SecretStr:
    """The endpoint's key. Raises InputError where there is none and one is needed."""
    if endpoint.key_file:
        if not storage.exists(endpoint.key_file):
            raise InputError(f"resources.endpoint.key_file: {endpoint.key_file}: no such file")
        return SecretStr(storage.read_text(endpoint.key_file).strip())
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key and not (endpoint.base_url or os.environ.get("OPENAI_BASE_URL")):
        raise InputError("no key for OpenAI: set OPENAI_API_KEY, or resources.endpoint.key_file")
    return SecretStr(key or "none")  # a server of one's own may need none
