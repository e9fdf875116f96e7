"""The project "judge audit": completions for people to grade who see neither the judge's grade nor whose they are."""

from collections.abc import Mapping, Sequence

import numpy as np

from unlearn_ray.evidence import SUBTLETIES
from unlearn_ray.review.tasks import Task, escaped, make_task, page

GRADES = ("0", "1", "2", "3")
NOTHING = " It was late by then, and nobody said anything more about it until the next day."
"""A completion that shows nothing, whatever the work is."""
GOLD, REFERENCE = 100, 220  # characters: of a completion that the work itself gives, and of what is shown of the work


def stratum(row: Mapping) -> tuple[int, str]:
    """What completions are sampled by: the judge's grade, and the band of the prompt's subtlety ("" where nobody gave
    it one)."""
    return row["grade"], next((band for band, values in SUBTLETIES.items() if row["subtlety"] in values), "")


def judge_tasks(
    forget_set: str, rows: Sequence[Mapping], models: Sequence[str], *, count: int, gold: int, seed: int
) -> tuple[list[Task], list[Task]]:
    """The tasks, and the gold tasks: texts of the work itself that name what is its own, and one that shows nothing.

    rows: completions.parquet. Of every model, grade and subtlety as many as the smallest leave room for, in random
    order, so that an annotator who stops early has seen some of each. Two models that complete a prompt alike are one
    task.
    """
    graded = [row for row in rows if row["kind"] == "familiarity" and row["grade"] is not None]
    strata: dict[tuple, list[Mapping]] = {}
    for row in graded:
        if row["model"] in models:
            strata.setdefault((row["model"], *stratum(row)), []).append(row)
    rng = np.random.default_rng(seed)
    queues = [[of[at] for at in rng.permutation(len(of))] for _, of in sorted(strata.items())]
    chosen: dict[tuple[str, str], Mapping] = {}
    while any(queues) and len(chosen) < count:
        for queue in queues:
            if queue and len(chosen) < count:
                row = queue.pop()
                chosen.setdefault((row["prompt"], row["completion"]), row)
    picked = list(chosen.values())
    tasks = [_task(forget_set, picked[at], None) for at in rng.permutation(len(picked))]
    return tasks, _gold(forget_set, graded, gold)


def _gold(forget_set: str, graded: Sequence[Mapping], count: int) -> list[Task]:
    prompts = {row["prompt"]: row for row in graded}
    telling = {row["prompt"]: row for row in graded if row["grade"] == 3}  # what names the work when a model says it
    known = [
        _task(forget_set, {**row, "completion": " " + _beginning(row["reference"].split(" | ")[0].strip(), GOLD)}, "3")
        for row in list(telling.values())[: count // 2]
    ]
    plain = [row for prompt, row in prompts.items() if prompt not in telling]
    return known + [_task(forget_set, {**row, "completion": NOTHING}, "0") for row in plain[: count - len(known)]]


def _task(forget_set: str, row: Mapping, gold: str | None) -> Task:
    shown = page(
        f"{escaped(row['prompt'])} <b>{escaped(row['completion'].strip())}</b>",
        '<span style="font-size: 14px; color: #666">The work itself: '
        f"{escaped(_beginning(row['reference'], REFERENCE))}</span>",
    )
    facts = {"prompt": row["prompt"], "completion": row["completion"]}
    return make_task("judge", forget_set, {"shown": shown}, facts | ({"gold": gold} if gold else {}))


def _beginning(text: str, characters: int) -> str:
    """At most so many characters, whole words."""
    return text if len(text) <= characters else text[:characters].rsplit(" ", 1)[0] + " …"
