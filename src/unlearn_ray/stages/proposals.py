"""Proposals: passages of the documents -> what a language model takes for anchor terms in them.

One actor sends the requests, several at a time. Every answer is kept under the root by what was asked, so a killed step
asks for the rest only, and more passages of the same documents cost only what they add.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
from pydantic import SecretStr

from unlearn_ray.config import Anchors, Endpoint, Resources
from unlearn_ray.documents import read_documents
from unlearn_ray.endpoint import Answer, Chat, Connection, Question, Unanswered, check_endpoint, estimate_tokens
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.material import documents_of
from unlearn_ray.method.passages import Passage, draw_passages
from unlearn_ray.method.proposals import (
    PROMPT_VERSION,
    SCHEMA,
    Proposal,
    Unreadable,
    asked_again,
    question,
    read_answer,
    read_entry,
)
from unlearn_ray.stages.blocks import read_blocks

PROPOSALS = "proposals.jsonl"
TROUBLES = "troubles.jsonl"
GIVE_UP_AFTER = 10  # questions without an answer, one after the other: the endpoint is down
# How an answer was taken. Of a partly read one the entries that can be read are taken.
READ, REPAIRED, PARTLY, UNREADABLE = "read", "read when asked again", "partly read", "unreadable"
REFUSED, UNANSWERED = "refused", "unanswered"


def asking_params(settings: Anchors) -> dict:
    """What the proposals depend on, beside the documents."""
    return settings.model_dump(include={"source", "model", "passages", "passage_characters", "answer_tokens"}) | {
        "prompt": PROMPT_VERSION
    }


def propose_by_model(run: StepRun, *, settings: Anchors, seed: int, resources: Resources, answers: str) -> dict:
    """Inputs: blocks. Writes proposals.jsonl (as read_proposals reads it), and troubles.jsonl with every passage whose
    answer was not simply read. Raises StepFailed, with all answers kept, where a passage has no answer.
    """
    documents = documents_of(read_blocks(run.inputs["blocks"], ["document", "index", "text"]))
    passages = _passages(documents, settings, seed)
    arguments = {
        "connection": _connection_of(resources),
        "api_key": _read_key(resources.endpoint),
        "model": settings.model,
        "answer_tokens": settings.answer_tokens,
        "answers": answers,
    }
    pool = Pool(AskShard, arguments, cpus=0.5)  # it waits
    size = 4 * resources.endpoint.requests_at_once
    shards = [
        json.dumps([asdict(p) for p in passages[start : start + size]]) for start in range(0, len(passages), size)
    ]
    rows = sorted(map_shards("proposals", shards, pool), key=lambda row: row["passage"])
    found = [Proposal(**entry) for row in rows for entry in json.loads(row["proposals"])]
    storage.write_lines(storage.join(run.out, PROPOSALS), map(asdict, found))
    troubles = [row for row in rows if row["outcome"] not in (READ, REPAIRED)]
    storage.write_lines(
        storage.join(run.out, TROUBLES),
        ({key: row[key] for key in ("passage", "outcome", "answer")} for row in troubles),
    )
    outcomes = Counter(row["outcome"] for row in rows)
    if outcomes[UNANSWERED]:
        last = next(row["answer"] for row in reversed(rows) if row["outcome"] == UNANSWERED)
        raise StepFailed(
            f"{outcomes[UNANSWERED]} of {len(rows)} passages have no answer (the last: {last}); "
            "the others are kept: run again to ask for these alone"
        )
    usage = {key: sum(row[key] for row in rows) for key in ("questions", "kept", "prompt_tokens", "completion_tokens")}
    return {"rows": {"passages": len(rows), "proposals": len(found)}, "outcomes": dict(outcomes), "usage": usage}


class AskShard:
    """Passages -> for each what was proposed, how the answer was taken, and what it cost now."""

    def __init__(self, connection: Connection, api_key: SecretStr, model: str, answer_tokens: int, answers: str):
        self.chat = Chat(connection, api_key.get_secret_value(), KeptAnswers(answers))
        self.model, self.answer_tokens, self.at_once = model, answer_tokens, connection.at_once
        self.failures = 0

    def __call__(self, shard: pa.Table) -> pa.Table:
        passages = [Passage(**passage) for passage in json.loads(shard["shard"][0].as_py())]
        with ThreadPoolExecutor(self.at_once) as threads:
            return pa.Table.from_pylist(list(threads.map(self._ask, passages)))

    def _ask(self, passage: Passage) -> dict:
        """A row; an answer that cannot be read is asked for once more."""
        name = f"{passage.document}:{passage.start}-{passage.end}"
        given: list[Answer] = []
        try:
            outcome, text, found = self._taken(passage.text, given)
            self.failures = 0
        except Unanswered as error:
            self.failures += 1
            if self.failures >= GIVE_UP_AFTER:
                raise StepFailed(f"{GIVE_UP_AFTER} questions in a row had no answer: {error}") from error
            outcome, text, found = UNANSWERED, str(error), []
        found = [replace(one, passage=name, source=f"openai:{self.model}") for one in found]
        now = [answer for answer in given if not answer.kept]
        return {
            "passage": name,
            "outcome": outcome,
            "answer": text,
            "proposals": json.dumps([asdict(one) for one in found], ensure_ascii=False),
            "questions": len(now),
            "kept": len(given) - len(now),
            "prompt_tokens": sum(answer.prompt_tokens for answer in now),
            "completion_tokens": sum(answer.completion_tokens for answer in now),
        }

    def _taken(self, passage: str, given: list[Answer]) -> tuple[str, str, list[Proposal]]:
        messages = question(passage)
        for last, outcome in ((False, READ), (True, REPAIRED)):
            answer = self.chat.ask(Question(self.model, tuple(messages), SCHEMA, self.answer_tokens))
            given.append(answer)
            if answer.finish == "refusal":
                return REFUSED, answer.text, []
            try:
                return outcome, answer.text, read_answer(answer.text)
            except Unreadable as problem:
                if last:
                    return (PARTLY if problem.rest else UNREADABLE), answer.text, problem.rest
                messages = asked_again(passage, answer.text, str(problem))
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


@dataclass(frozen=True)
class Estimate:
    """What asking will cost at most: questions without a kept answer, and tokens. An answer that cannot be read costs a
    second question, which is not counted."""

    passages: int
    questions: int
    prompt_tokens: int
    completion_tokens: int


def estimate(documents: Sequence[str], *, settings: Anchors, seed: int, answers: str) -> Estimate:
    """The cost of asking about the documents' files, without asking."""
    passages = _passages(dict(read_documents(documents, storage.read_bytes)), settings, seed)
    kept, open_tokens = KeptAnswers(answers), []
    for passage in passages:
        messages = question(passage.text)
        if not kept.read(Question(str(settings.model), tuple(messages), SCHEMA, settings.answer_tokens).key):
            open_tokens.append(estimate_tokens(messages))
    count = len(open_tokens)
    return Estimate(len(passages), count, sum(open_tokens), count * settings.answer_tokens)


def check_asking(resources: Resources) -> None:
    """Raises InputError where there is no key, or no endpoint that takes it."""
    check_endpoint(_connection_of(resources), _read_key(resources.endpoint).get_secret_value())


def read_proposals(path: str) -> list[Proposal]:
    """Raw proposals, one JSON object a line. Raises InputError with the line for one without the texts anchor and
    generic."""
    found = []
    for number, line in enumerate(storage.read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                given = json.loads(line)
            except json.JSONDecodeError:
                given = None
            proposal = read_entry(given)
            if given is None or proposal is None:
                raise InputError(
                    f'{path}, line {number}: expected an object such as {{"anchor": "Hogwarts", "generic": "Mystic '
                    f'Academy", "kind": "organisation", "passage": "chapter 1"}}'
                )
            passage, source = (str(given.get(key, "")) for key in ("passage", "source"))
            found.append(replace(proposal, passage=passage or f"line {number}", source=source or "proposals"))
    if not found:
        raise InputError(f"{path}: no proposals in this file")
    return found


def _connection_of(resources: Resources) -> Connection:
    """The part of the endpoint's capacity that one of the sets in work has."""
    endpoint, sets = resources.endpoint, resources.parallel_sets
    return Connection(
        endpoint.base_url,
        at_once=math.ceil(endpoint.requests_at_once / sets),
        per_minute=endpoint.requests_per_minute / sets,
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


def _passages(documents: Mapping[str, str], settings: Anchors, seed: int) -> list[Passage]:
    return draw_passages(documents, count=settings.passages, characters=settings.passage_characters, seed=seed)
