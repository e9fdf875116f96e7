"""The steps that apply what people decided, and what export asks them about, read from the folders of a run's steps."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from unlearn_ray.config import Review
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import Step, StepRun
from unlearn_ray.evidence import BEFORE
from unlearn_ray.labelling import alpha_column
from unlearn_ray.material import documents_of
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.review.anchors import anchor_tasks
from unlearn_ray.review.corrections import continuation_ids, correct_labels, corrected_entries
from unlearn_ray.review.judge import judge_tasks
from unlearn_ray.review.labels import doubtful_places, gold_places, label_tasks
from unlearn_ray.review.scores import corrected_scores
from unlearn_ray.review.tasks import Task, among
from unlearn_ray.stages.anchors import read_dictionary, write_dictionary
from unlearn_ray.stages.baseline import open_tokenizer
from unlearn_ray.stages.blocks import read_blocks, read_parquet, write_parquet

NEEDED = {"anchors": ("blocks", "anchors"), "labels": ("baseline", "blocks", "labels"), "judge": ("evaluation",)}
"""The steps that a project asks about, as they were before review."""


def reviewed(
    step: Step,
    decisions: list[dict],
    apply: Callable[..., dict],
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Step] | None = None,
) -> dict[str, Step]:
    """A step by its name, as people corrected it where they did: then the step itself is there as unreviewed_NAME."""
    if not decisions:
        return {step.stage: step}
    contents = {"decisions": hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest()}
    apply = partial(apply, decisions=decisions)
    given = {step.stage: step, **(inputs or {})}
    reviewed = Step(f"reviewed_{step.stage}", 1, step.forget_set, params or {}, apply, given, contents)
    return {f"unreviewed_{step.stage}": step, step.stage: reviewed}


def review_dictionary(run: StepRun, *, decisions: Sequence[Mapping[str, Any]]) -> dict:
    """Inputs: anchors. Writes the corrected dictionary.jsonl, and refused.jsonl: the decisions that do not fit it."""
    entries, refused = corrected_entries(read_dictionary(run.inputs["anchors"]).anchors, decisions)
    figures = write_dictionary(run.out, AnchorDictionary(entries, "the dictionary as reviewed"))
    storage.write_lines(storage.join(run.out, "refused.jsonl"), refused)
    figures["rows"] |= {"decisions": len(decisions), "refused": len(refused)}
    return figures | {"actions": dict(Counter(row["action"] for row in decisions))}


def review_labels(
    run: StepRun, *, decisions: Sequence[Mapping[str, Any]], alpha: float, trust_remote_code: bool
) -> dict:
    """Inputs: baseline, labels. Writes the files of the labels again, without the labels that people threw out."""
    tokenizer = open_tokenizer(run.inputs["baseline"], trust_remote_code)
    counts: Counter = Counter()
    blocks = 0
    for path in _parts(run.inputs["labels"]):
        table = read_parquet(path)
        reviewed, found = correct_labels(
            table, decisions, column=alpha_column(alpha), continue_with=partial(continuation_ids, tokenizer)
        )
        counts += found
        blocks += table.num_rows
        write_parquet(storage.join(run.out, PurePosixPath(path).name), reviewed)
    counts["no_longer_there"] += len(decisions) - counts.total()  # of blocks that are not there any more
    labels = {what: counts[what] for what in ("masked", "replaced", "no_longer_there")}
    return {"rows": {"blocks": blocks, "decisions": len(decisions)}, "labels": labels}


def review_grades(run: StepRun, *, decisions: Sequence[Mapping[str, Any]], resamples: int, seed: int) -> dict:
    """Inputs: evaluation. Writes corrected.json (review/scores.py)."""
    rows = read_parquet(storage.join(run.inputs["evaluation"], "completions.parquet")).to_pylist()
    found = corrected_scores(rows, decisions, resamples=resamples, seed=seed)
    storage.write_json(storage.join(run.out, "corrected.json"), found)
    return {"rows": {"decisions": len(decisions), "audited": found["audited"]}}


def tasks_of(
    project: str,
    folders: Mapping[str, str],
    *,
    forget_set: str,
    settings: Review,
    alpha: float,
    seed: int,
    trust_remote_code: bool,
    wanting: Sequence[str],
) -> list[Task]:
    """The tasks of one project, most important first, gold tasks among them. folders: of the steps in NEEDED."""
    if project == "anchors":
        blocks = read_blocks(folders["blocks"], ["document", "index", "text"])
        found = anchor_tasks(
            forget_set,
            read_dictionary(folders["anchors"]),
            documents_of(blocks),
            **settings.model_dump(include={"terms", "passages", "passage_characters", "gold"}),
            seed=seed,
            wanting=wanting,
        )
    elif project == "labels":
        found = _label_tasks(folders, forget_set, settings, alpha, trust_remote_code)
    else:
        metrics = storage.read_json(storage.join(folders["evaluation"], "metrics.json"))
        rows = read_parquet(storage.join(folders["evaluation"], "completions.parquet")).to_pylist()
        models = (BEFORE, metrics["choice"]["model"])
        found = judge_tasks(forget_set, rows, models, count=settings.completions, gold=settings.gold, seed=seed)
    tasks, gold = found
    return among(tasks, gold) if tasks else []


def _label_tasks(
    folders: Mapping[str, str], forget_set: str, settings: Review, alpha: float, trust_remote_code: bool
) -> tuple[list[Task], list[Task]]:
    tokenizer = open_tokenizer(folders["baseline"], trust_remote_code)
    parts, column = _parts(folders["labels"]), alpha_column(alpha)
    found = doubtful_places(map(read_parquet, parts), column, below=settings.label_probability, count=settings.labels)
    gold = gold_places(read_parquet(parts[0]), column, tokenizer, settings.gold) if parts else []
    wanted = {one.block_id for one in found} | {one.block_id for one, _, _ in gold}
    blocks = read_blocks(folders["blocks"], ["block_id", "before", "text", "ends"])
    kept = blocks.filter([block in wanted for block in blocks["block_id"].to_pylist()])
    return label_tasks(forget_set, found, gold, {row["block_id"]: row for row in kept.to_pylist()}, tokenizer)


def _parts(folder: str) -> list[str]:
    return [file for file in storage.list_files(folder) if file.endswith(".parquet")]
