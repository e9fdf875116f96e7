"""Evaluation: the baseline, the reinforced model, every checkpoint and the unlearned model on the same material.

Which checkpoint is chosen, and what it forgot and kept, follows from readings that are made once (examine.py).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pyarrow as pa

from unlearn_ray.benchmarks import benchmark_items
from unlearn_ray.config import Evaluate, Judge, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.steps import Step, StepRun, step_states
from unlearn_ray.errors import InputError
from unlearn_ray.evaluation import measure
from unlearn_ray.evidence import BEFORE, LAST, REFERENCE, REINFORCED, completion_rows, next_tokens, summarise
from unlearn_ray.material import Material, Question, prepare, shortages
from unlearn_ray.method.llm_judge import Completion
from unlearn_ray.method.prompts import Prompt
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.baseline import open_tokenizer
from unlearn_ray.stages.blocks import read_blocks, write_parquet
from unlearn_ray.stages.examine import Study, examine
from unlearn_ray.stages.judging import grade_by_model
from unlearn_ray.stages.written_prompts import PROMPTS, read_prompts

TEXTS = "text-"  # what the inputs with texts to read are called: text-retain, text-nonmembers, text-NEIGHBOUR
CHOICE = "choice.json"  # of the input choice
COLUMNS = ["document", "index", "text", "input_ids"]

COMPLETION_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # familiarity | verbatim
        ("prompt", pa.string()),
        ("reference", pa.string()),  # how the document goes on, or what the prompt's author wrote down
        ("subtlety", pa.int8()),  # 1 to 10, null for prompts that nobody wrote
        ("model", pa.string()),
        ("completion", pa.string()),
        ("grade", pa.int8()),  # null for verbatim, and where the judge could not be read
        ("rouge_l", pa.float64()),  # null for familiarity, as is longest_run
        ("longest_run", pa.int32()),
        ("anchors_named", pa.list_(pa.string())),
    ]
)


def evaluate(
    run: StepRun, *, settings: Evaluate, resources: Resources, trust_remote_code: bool, answers: str = ""
) -> dict:
    """Writes metrics.json, completions.parquet and the readings; returns row counts and the changes for the manifest.

    Inputs: baseline, blocks (the forget set), anchors, unlearned and, where there are such, reinforced, texts and
    prompts; for sets that were forgotten together also measures, an evaluation whose readings are taken, and choice,
    the choice that was made for all of them. answers: where those of a language model that grades are kept. Raises
    InputError for files of prompts, probes or controls that cannot be read.
    """
    dictionary = read_dictionary(run.inputs["anchors"])
    tokenizer = open_tokenizer(run.inputs[BEFORE], trust_remote_code)
    material = prepare_material(run, settings, trust_remote_code)
    models = models_of(run, settings)
    studies: dict[str, Study] = {"core": partial(measure, material=material)}
    if settings.benchmarks.tasks:
        studies["benchmarks"] = partial(benchmark_items, **settings.benchmarks.model_dump())
    found = examine(
        run.inputs.get("measures", run.out),
        models,
        studies,
        baseline=run.inputs[BEFORE],
        resources=resources,
        trust_remote_code=trust_remote_code,
    )
    right = found.get("benchmarks", {model: {} for model in models})
    readings = {
        model: found["core"][model] | {f"benchmark/{task}": items for task, items in right[model].items()}
        for model in models
    }
    completions = completion_rows(material, readings, dictionary, tokenizer)
    judging = {}
    if settings.judge.source == "openai":
        judging = {"judging": _grade(completions, material, settings.judge, resources, answers)}
    together = storage.read_json(storage.join(run.inputs["choice"], CHOICE)) if "choice" in run.inputs else None
    metrics = summarise(readings, completions, material, settings, together)
    metrics |= {
        "next_token": next_tokens(material, readings, metrics["choice"]["model"], tokenizer),
        "settings": settings.model_dump(mode="json") | {"theme_words": sorted(material.themes)},
        "dropped": shortages(material, settings),
    }
    write_parquet(storage.join(run.out, "completions.parquet"), pa.Table.from_pylist(completions, COMPLETION_SCHEMA))
    storage.write_json(storage.join(run.out, "metrics.json"), metrics)
    return {
        "rows": {"models": len(models), "completions": len(completions)},
        "choice": metrics["choice"]["model"],
        "changes": metrics["changes"],
    } | judging


def _grade(completions: list[dict], material: Material, judge: Judge, resources: Resources, answers: str) -> dict:
    """Puts a language model's grades in place of the dictionary's; returns the figures of asking it."""
    references = {prompt.text: prompt.references for prompt in material.completion}
    rows = [row for row in completions if row["kind"] == "familiarity"]
    asked = [Completion(row["prompt"], references[row["prompt"]], row["completion"]) for row in rows]
    grades, figures = grade_by_model(asked, settings=judge, resources=resources, answers=answers)
    for row, grade in zip(rows, grades, strict=True):
        row["grade"] = grade
    return figures


def prepare_material(run: StepRun, settings: Evaluate, trust_remote_code: bool) -> Material:
    """The material of the forget set in the inputs of a step."""
    return prepare(
        settings,
        blocks=read_blocks(run.inputs["blocks"], COLUMNS),
        other_texts={
            name.removeprefix(TEXTS): read_blocks(folder, COLUMNS)
            for name, folder in run.inputs.items()
            if name.startswith(TEXTS)
        },
        written=_written_prompts(run, settings),
        curated=read_token_prompts(settings.token_prompts) if settings.token_prompts else None,
        probes=read_questions(settings.probes) if settings.probes else [],
        controls=read_questions(settings.controls) if settings.controls else [],
        dictionary=read_dictionary(run.inputs["anchors"]),
        tokenizer=open_tokenizer(run.inputs[BEFORE], trust_remote_code),
    )


def _written_prompts(run: StepRun, settings: Evaluate) -> list[Prompt] | None:
    """The prompts that a language model or the user wrote; None for those that are cut from the documents."""
    file = settings.prompts.file
    if "prompts" in run.inputs:
        file = storage.join(run.inputs["prompts"], PROMPTS)
    if file is None:
        return None
    return [Prompt(one.document, one.prompt, one.references, subtlety=one.subtlety) for one in read_prompts(file)]


def checkpoint_folder(unlearned: str, model: str) -> str:
    """Where a checkpoint lies, by the name that evaluation gives it, in the folder of the unlearned model."""
    return unlearned if model == LAST else storage.join(unlearned, "checkpoints", model)


def unchosen(root: str, evaluations: Sequence[Step]) -> list[str]:
    """Folders of checkpoints that were measured, and not chosen by any of the sets that they were made for."""
    states = {one.step.digest: one for one in step_states(root, evaluations)}
    choices: dict[str, set[str] | None] = {}
    for step in evaluations:
        unlearned, done = step.inputs["unlearned"], states[step.digest]
        folder = states[unlearned.digest].folder
        if done.state != "done" or states[unlearned.digest].state != "done":
            choices[folder] = None
        elif (kept := choices.setdefault(folder, set())) is not None:
            kept.add(storage.read_json(storage.join(done.folder, "metrics.json"))["choice"]["model"])
    checkpoints = {one: storage.list_folders(storage.join(one, "checkpoints")) for one, kept in choices.items() if kept}
    return [
        checkpoint
        for folder, there in checkpoints.items()
        for checkpoint in there
        if checkpoint.rpartition("/")[2] not in (choices[folder] or ())
    ]


def models_of(run: StepRun, settings: Evaluate) -> dict[str, str]:
    """Name -> folder of all that is measured: baseline, reference, reinforced, step-N ..., unlearned."""
    unlearned = run.inputs["unlearned"]
    steps = {
        int(match[1]): checkpoint_folder(unlearned, f"step-{match[1]}")
        for file in storage.list_files(storage.join(unlearned, "checkpoints"))
        if (match := re.search(r"/step-(\d+)/[^/]+$", file))
    }
    given: Mapping[str, str | None] = {
        BEFORE: run.inputs[BEFORE],
        REFERENCE: settings.reference,
        REINFORCED: run.inputs.get(REINFORCED),
    }
    return (
        {name: folder for name, folder in given.items() if folder}
        | {f"step-{step}": steps[step] for step in sorted(steps)}
        | {LAST: unlearned}
    )


def read_questions(path: str) -> list[Question]:
    """JSONL of {"prompt", "answer"} and, if wanted, {"language"}, one a line. Raises InputError with the line that is
    something else."""
    form = '{"prompt": "...", "answer": " ..."}'
    rows = _read_rows(path, form, lambda row: row["prompt"].strip() and row["answer"].strip())
    return [Question(row["prompt"], row["answer"], str(row.get("language", ""))) for row in rows]


def read_token_prompts(path: str) -> list[tuple[str, list[str]]]:
    """JSONL of {"prompt", "tokens"}, one a line: prompts with the words that may come next. Raises InputError with the
    line that is something else."""
    form = '{"prompt": "...", "tokens": [" ...", " ..."]}'
    rows = _read_rows(
        path, form, lambda row: row["prompt"].strip() and row["tokens"] and all(word.strip() for word in row["tokens"])
    )
    return [(row["prompt"], row["tokens"]) for row in rows]


def _read_rows(path: str, form: str, filled: Callable[[dict], object]) -> list[dict]:
    """The JSON objects of a file, one a line. filled: false, or an error, for a row that is not of the form."""
    if not storage.exists(path):
        raise InputError(f"no such file of questions: {path}")
    rows = []
    # Not splitlines(): a JSON string may hold U+2028 as it is.
    for number, line in enumerate(storage.read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
            if not filled(rows[-1]):
                raise InputError(f"{path}, line {number}: nothing of {form} may be empty")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: expected {form}, got {line[:80]!r}") from error
    return rows
