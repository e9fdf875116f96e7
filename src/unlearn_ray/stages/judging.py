"""Grades of completions by a language model, asked through Ray."""

from collections import Counter
from collections.abc import Sequence

from unlearn_ray.config import Judge, Resources
from unlearn_ray.method.llm_judge import JUDGE_VERSION, SCHEMA, Completion, question, read_grade
from unlearn_ray.stages.asking import Inquiry, ask_all, figures_of


def judging_params(settings: Judge) -> dict:
    """What the grades depend on, beside the completions."""
    if settings.source == "dictionary":
        return {"source": settings.source}
    return settings.model_dump() | {"prompt": JUDGE_VERSION}


def grade_by_model(
    rows: Sequence[Completion], *, settings: Judge, resources: Resources, answers: str
) -> tuple[list[int | None], dict]:
    """Each row's grade, 0 to 3, or None where the model refused or its answer could not be read, asked again or not;
    and figures: how many rows had which outcome, and what the answers cost now.

    Equal rows, such as two models that complete a prompt alike, are one question. Raises StepFailed, with all answers
    kept, where a question has no answer.
    """
    distinct = list(dict.fromkeys(rows))
    inquiry = Inquiry(str(settings.model), SCHEMA, settings.answer_tokens, read_grade)
    asked = [question(row) for row in distinct]
    given = ask_all("completions", asked, inquiry, resources=resources, answers=answers)
    taken = dict(zip(distinct, given, strict=True))
    outcomes = Counter(taken[row].outcome for row in rows)
    return [taken[row].found for row in rows], figures_of(given) | {"outcomes": dict(outcomes)}
