"""Evaluation: the baseline, the reinforced model, every checkpoint and the unlearned model on the same material.

As many actors as the run has workers measure one model at a time each. The two that matter, baseline and unlearned, are
measured on everything; the reinforced model and the checkpoints on what the curves of the report are drawn from.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.util.actor_pool import ActorPool
from transformers import PreTrainedTokenizerFast

from unlearn_ray.config import Evaluate, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import own_errors
from unlearn_ray.engine.session import gpus_per_scorer
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import InputError
from unlearn_ray.evaluation import Measurement, measure
from unlearn_ray.material import Material, Question, prepare, shortages
from unlearn_ray.method.blocks import BLOCK_SCHEMA
from unlearn_ray.method.dictionary import AnchorDictionary
from unlearn_ray.method.judge import judge, rouge_l
from unlearn_ray.method.metrics import Items, compare, estimate, familiarity_items, mean_items, perplexity_items
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.baseline import open_model, open_tokenizer
from unlearn_ray.stages.blocks import read_blocks, write_parquet

BEFORE, AFTER, REINFORCED = "baseline", "unlearned", "reinforced"
SHOWN_PROMPTS, SHOWN_TOKENS = 6, 6
COLUMNS = ["document", "index", "text", "input_ids"]

COMPLETION_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # familiarity | verbatim
        ("prompt", pa.string()),
        ("reference", pa.string()),  # how the document goes on
        ("model", pa.string()),
        ("completion", pa.string()),
        ("grade", pa.int8()),  # null for verbatim
        ("rouge_l", pa.float64()),  # null for familiarity
        ("anchors_named", pa.list_(pa.string())),
    ]
)


def evaluate(run: StepRun, *, settings: Evaluate, resources: Resources, trust_remote_code: bool) -> dict:
    """Writes metrics.json and completions.parquet; returns row counts and the changes for the manifest.

    Inputs: baseline, blocks (the forget set), anchors, unlearned and, where there are such, heldout (blocks of other
    prose) and reinforced. Raises InputError for probes or controls that cannot be read.
    """
    dictionary = read_dictionary(run.inputs["anchors"])
    tokenizer = open_tokenizer(run.inputs[BEFORE], trust_remote_code)
    material = prepare(
        settings,
        blocks=read_blocks(run.inputs["blocks"], COLUMNS),
        heldout=read_blocks(run.inputs["heldout"], COLUMNS) if "heldout" in run.inputs else BLOCK_SCHEMA.empty_table(),
        probes=read_questions(settings.probes) if settings.probes else [],
        controls=read_questions(settings.controls) if settings.controls else [],
        dictionary=dictionary,
        tokenizer=tokenizer,
    )
    models, gpus = models_of(run), gpus_per_scorer(resources)
    actor = ray.remote(Measurer).options(
        num_cpus=0 if gpus else resources.cpus_per_worker, num_gpus=gpus, max_restarts=3, max_task_retries=3
    )
    shared = ray.put(material)
    pool = ActorPool(
        [
            actor.remote(run.inputs[BEFORE], shared, resources, trust_remote_code)
            for _ in range(min(resources.workers, len(models)))
        ]
    )
    with own_errors():
        found = cast(Any, pool.map(lambda one, model: one.measure.remote(*model), list(models.items())))
        measured: dict[str, Measurement] = dict(zip(models, found, strict=True))

    completions = _completions(material, measured, dictionary, tokenizer)
    metrics = summarise(measured, completions, resamples=settings.bootstrap, seed=settings.seed) | {
        "next_token": _next_token(material, measured, tokenizer),
        "settings": settings.model_dump(mode="json") | {"theme_words": sorted(material.themes)},
        "dropped": shortages(material, settings),
    }
    write_parquet(storage.join(run.out, "completions.parquet"), pa.Table.from_pylist(completions, COMPLETION_SCHEMA))
    storage.write_json(storage.join(run.out, "metrics.json"), metrics)
    return {"rows": {"models": len(measured), "completions": len(completions)}, "changes": metrics["changes"]}


def models_of(run: StepRun) -> dict[str, str]:
    """Name -> folder of all that is measured, in the order of training: baseline, reinforced, step-N ..., unlearned."""
    unlearned = run.inputs["unlearned"]
    steps = {
        int(match[1]): storage.join(unlearned, "checkpoints", f"step-{match[1]}")
        for file in storage.list_files(storage.join(unlearned, "checkpoints"))
        if (match := re.search(r"/step-(\d+)/[^/]+$", file))
    }
    reinforced = {REINFORCED: run.inputs[REINFORCED]} if REINFORCED in run.inputs else {}
    return (
        {BEFORE: run.inputs[BEFORE]}
        | reinforced
        | {f"step-{step}": steps[step] for step in sorted(steps)}
        | {AFTER: unlearned}
    )


def summarise(
    measured: Mapping[str, Measurement], completions: list[dict], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The figures of metrics.json from item-by-item values: each with n and interval, changes paired by item."""
    items = {name: _items(measurement, completions, name) for name, measurement in measured.items()}
    metrics: dict[str, dict[str, dict]] = {}
    for model, of_model in items.items():
        for metric, values in of_model.items():
            metrics.setdefault(metric, {})[model] = asdict(estimate(values, resamples, seed))
    changes = {
        metric: asdict(compare(items[BEFORE][metric], items[AFTER][metric], resamples, seed))
        for metric in items[BEFORE]
    }
    graded = Counter((row["model"], str(row["grade"])) for row in completions if row["kind"] == "familiarity")
    return {
        "models": [name for name in measured if name != REINFORCED],
        "metrics": metrics,
        "changes": changes,
        "grades": {name: {grade: graded[name, grade] for grade in "0123"} for name in (BEFORE, AFTER)},
    }


def _items(measurement: Measurement, completions: list[dict], model: str) -> dict[str, Items]:
    """The metrics that a model was measured on, by name."""
    grades = [row["grade"] for row in completions if row["model"] == model and row["kind"] == "familiarity"]
    rouge = [row["rouge_l"] for row in completions if row["model"] == model and row["kind"] == "verbatim"]
    m = measurement
    found = {
        "completion_familiarity": familiarity_items(np.array(grades)),
        "probability_familiarity": mean_items(m.specific_mass_N),
        "verbatim_rouge_l": mean_items(np.array(rouge)),
        "perplexity_forget": perplexity_items(m.forget_nll_N, m.forget_tokens_N),
        "perplexity_retain": perplexity_items(m.heldout_nll_N, m.heldout_tokens_N),
        "probe_probability": mean_items(m.probe_probability_N),
        "control_probability": mean_items(m.control_probability_N),
    }
    return {metric: items for metric, items in found.items() if len(items.values_N)}


def _completions(
    material: Material,
    measured: Mapping[str, Measurement],
    dictionary: AnchorDictionary,
    tokenizer: PreTrainedTokenizerFast,
) -> list[dict]:
    """Rows of COMPLETION_SCHEMA: the judged completions and verbatim continuations of the models that wrote any."""
    rows = []
    for model, measurement in measured.items():
        for prompt, completion in zip(material.completion, measurement.completions, strict=False):
            verdict = judge(prompt.text, completion, dictionary, material.themes)
            shown = {"kind": "familiarity", "grade": verdict.grade, "anchors_named": list(verdict.anchors)}
            rows.append(shown | _row(model, prompt.text, prompt.reference, completion))
        for prompt, completion in zip(material.verbatim, measurement.continuations, strict=False):
            # As many tokens as the model may write: what it had no room for is not held against it.
            ids = tokenizer(prompt.reference, add_special_tokens=False)["input_ids"][: material.completion_tokens]
            reference = str(tokenizer.decode(ids))
            shown = {"kind": "verbatim", "rouge_l": rouge_l(reference, completion), "anchors_named": []}
            rows.append(shown | _row(model, prompt.text, reference, completion))
    return rows


def _row(model: str, prompt: str, reference: str, completion: str) -> dict:
    return {"model": model, "prompt": prompt, "reference": reference, "completion": completion}


def _next_token(
    material: Material, measured: Mapping[str, Measurement], tokenizer: PreTrainedTokenizerFast
) -> list[dict]:
    """The prompts on which the baseline gives most to specific tokens, with both models' likeliest next tokens."""
    before_NV, after_NV = measured[BEFORE].shown_NV, measured[AFTER].shown_NV
    mass = [float(before_V[prompt.specific].sum()) for prompt, before_V in zip(material.shown, before_NV, strict=True)]
    plots = []
    for row in sorted(range(len(mass)), key=lambda row: -mass[row])[:SHOWN_PROMPTS]:
        before_V, after_V = before_NV[row], after_NV[row]
        top = set(np.argsort(-before_V)[:SHOWN_TOKENS].tolist()) | set(np.argsort(-after_V)[:SHOWN_TOKENS].tolist())
        tokens = sorted(top, key=lambda token: -before_V[token])
        plots.append(
            {
                "prompt": material.shown[row].text,
                "tokens": [str(tokenizer.decode([token])) for token in tokens],
                "specific": [token in material.shown[row].specific for token in tokens],
                BEFORE: [float(before_V[token]) for token in tokens],
                AFTER: [float(after_V[token]) for token in tokens],
            }
        )
    return plots


class Measurer:
    """The Ray actor. Every model is asked in the baseline's tokens, so that the items stay the same."""

    def __init__(self, baseline: str, material: Material, resources: Resources, trust_remote_code: bool):
        torch.set_num_threads(resources.cpus_per_worker)
        self.tokenizer = open_tokenizer(baseline, trust_remote_code)
        self.material, self.batch_blocks = material, resources.evaluation_batch
        self.trust_remote_code = trust_remote_code

    def measure(self, name: str, folder: str) -> Measurement:
        model = open_model(folder, self.trust_remote_code)
        material = self.material if name in (BEFORE, AFTER) else self.material.curves_only()
        return measure(model, self.tokenizer, material, self.batch_blocks)


def read_questions(path: str) -> list[Question]:
    """JSONL of {"prompt", "answer"}, one a line. Raises InputError with the line that is something else."""
    if not storage.exists(path):
        raise InputError(f"no such file of questions: {path}")
    questions = []
    # Not splitlines(): a JSON string may hold U+2028 as it is.
    for number, line in enumerate(storage.read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            filled = row["prompt"].strip() and row["answer"].strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'{path}, line {number}: expected {{"prompt": "...", "answer": " ..."}}, got {line[:80]!r}'
            ) from error
        if not filled:
            raise InputError(f"{path}, line {number}: neither prompt nor answer may be empty")
        questions.append(Question(row["prompt"], row["answer"]))
    return questions
