"""Proposals: passages of the documents -> what a language model takes for anchor terms in them.

More passages of the same documents cost only what they add.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from unlearn_ray.config import Anchors, Resources
from unlearn_ray.documents import read_documents
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError
from unlearn_ray.material import documents_of
from unlearn_ray.method.passages import Passage, draw_passages
from unlearn_ray.method.proposals import PROMPT_VERSION, SCHEMA, Proposal, question, read_answer, read_entry
from unlearn_ray.questions import estimate_tokens
from unlearn_ray.stages.asking import Inquiry, KeptAnswers, ask_all, figures_of, write_troubles
from unlearn_ray.stages.blocks import read_blocks

PROPOSALS = "proposals.jsonl"
TROUBLES = "troubles.jsonl"


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
    passages = sorted(_passages(documents, settings, seed), key=lambda passage: passage.name)
    asked = [question(passage.text) for passage in passages]
    taken = ask_all("passages", asked, _inquiry(settings), resources=resources, answers=answers)
    found = [
        Proposal(**entry | {"passage": passage.name, "source": f"openai:{settings.model}"})
        for passage, one in zip(passages, taken, strict=True)
        for entry in one.found or ()
    ]
    storage.write_lines(storage.join(run.out, PROPOSALS), map(asdict, found))
    write_troubles(storage.join(run.out, TROUBLES), [passage.name for passage in passages], taken)
    return {"rows": {"passages": len(passages), "proposals": len(found)}} | figures_of(taken)


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
    kept, inquiry, open_tokens = KeptAnswers(answers), _inquiry(settings), []
    for passage in passages:
        messages = question(passage.text)
        if not kept.read(inquiry.question(messages).key):
            open_tokens.append(estimate_tokens(messages))
    count = len(open_tokens)
    return Estimate(len(passages), count, sum(open_tokens), count * settings.answer_tokens)


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


def _inquiry(settings: Anchors) -> Inquiry:
    return Inquiry(str(settings.model), SCHEMA, settings.answer_tokens, read_answer)


def _passages(documents: Mapping[str, str], settings: Anchors, seed: int) -> list[Passage]:
    return draw_passages(documents, count=settings.passages, characters=settings.passage_characters, seed=seed)
