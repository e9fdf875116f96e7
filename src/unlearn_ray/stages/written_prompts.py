"""Prompts of the completion familiarity that a language model writes: passages of the documents -> one prompt each."""

import json
from collections import Counter

from unlearn_ray.config import Evaluate, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError, StepFailed
from unlearn_ray.material import documents_of
from unlearn_ray.method.answers import Unreadable
from unlearn_ray.method.passages import draw_passages
from unlearn_ray.method.written_prompts import (
    PROMPT_VERSION,
    SCHEMA,
    WrittenPrompt,
    question,
    read_answer,
    read_entry,
)
from unlearn_ray.stages.asking import Inquiry, ask_all, figures_of, write_troubles
from unlearn_ray.stages.blocks import read_blocks

PROMPTS = "prompts.jsonl"
TROUBLES = "troubles.jsonl"
TWICE = "another passage has the same prompt"


def writing_params(settings: Evaluate) -> dict:
    """What the prompts depend on, beside the documents."""
    asked = settings.prompts.model_dump(include={"model", "passage_characters", "answer_tokens"})
    return asked | {"count": settings.completions, "seed": settings.seed, "prompt": PROMPT_VERSION}


def write_prompts(run: StepRun, *, settings: Evaluate, resources: Resources, answers: str) -> dict:
    """Inputs: blocks. Asks for `settings.completions` prompts, each from a passage of its own.

    Writes prompts.jsonl (as read_prompts reads it), and troubles.jsonl with every passage whose prompt cannot be used;
    the figures say how many were dropped and why. Raises StepFailed where a passage has no answer, with all answers
    kept, and where no prompt can be used.
    """
    wanted = settings.prompts
    documents = documents_of(read_blocks(run.inputs["blocks"], ["document", "index", "text"]))
    passages = draw_passages(
        documents, count=settings.completions, characters=wanted.passage_characters, seed=settings.seed
    )
    inquiry = Inquiry(str(wanted.model), SCHEMA, wanted.answer_tokens, read_answer)
    asked = [question(passage.text) for passage in passages]
    taken = ask_all("passages", asked, inquiry, resources=resources, answers=answers)
    dropped = Counter(one.problem for one in taken if one.problem)
    prompts: dict[str, dict] = {}
    for passage, one in zip(passages, taken, strict=True):
        if one.found and one.found["prompt"] in prompts:
            dropped[TWICE] += 1
        elif one.found:
            prompts[one.found["prompt"]] = one.found | {"document": passage.document}
    storage.write_lines(storage.join(run.out, PROMPTS), prompts.values())
    write_troubles(storage.join(run.out, TROUBLES), [passage.name for passage in passages], taken)
    figures = figures_of(taken)
    if not prompts:
        raise StepFailed(
            f"none of the prompts that {wanted.model} wrote from {len(passages)} passages can be used "
            f"({figures['outcomes']}, {dict(dropped)}); {run.out}/{TROUBLES} holds its answers; ask another model"
        )
    return {"rows": {"passages": len(passages), "prompts": len(prompts)}} | figures | {"dropped": dict(dropped)}


def read_prompts(path: str) -> list[WrittenPrompt]:
    """Prompts, one JSON object a line, "document" optional. Raises InputError with the line for one that cannot be
    used."""
    if not storage.exists(path):
        raise InputError(f"no such file of prompts: {path}")
    found = []
    # Not splitlines(): a JSON string may hold U+2028 as it is.
    for number, line in enumerate(storage.read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                found.append(read_entry(json.loads(line)))
            except ValueError as error:  # not JSON, or Unreadable
                problem = error if isinstance(error, Unreadable) else "not JSON"
                raise InputError(
                    f'{path}, line {number}: {problem}; expected an object such as {{"prompt": "The ferryman knew '
                    f'that she was", "references": ["Tessaly Morn"], "subtlety": 8}}'
                ) from error
    if not found:
        raise InputError(f"{path}: no prompts in this file")
    return found
