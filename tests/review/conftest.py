"""A run that is finished as far as review needs it, made by hand: no model is loaded, and Ray is not started."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from unlearn_ray.config import RunConfig, load_config
from unlearn_ray.engine import storage
from unlearn_ray.labelling import LabelSettings, label_schema
from unlearn_ray.method.blocks import cut_blocks
from unlearn_ray.method.dictionary import Anchor, AnchorDictionary
from unlearn_ray.method.labels import IGNORED
from unlearn_ray.models import load_tokenizer
from unlearn_ray.pipeline import steps_of
from unlearn_ray.reviewing import Imported, export_review, import_review
from unlearn_ray.stages.baseline import POINTER
from unlearn_ray.stages.blocks import write_parquet
from unlearn_ray.stages.evaluate import COMPLETION_SCHEMA

DICTIONARY = [
    Anchor("Zorblax", "Marcus", "person", 9, ("keyness", "gain")),
    Anchor("Quendor", "Fairview", "place", 8, ("keyness",)),
    Anchor("lamp", "candle", "object", 8, ("keyness",)),
    Anchor("cellar", "attic", "other", 1, ("keyness",)),
]
SETTINGS = ["review.gold=0", "review.label_probability=0.05"]
GRADES = {"baseline": [3, 3, 0, 0, 0, 0, 0, 0], "unlearned": [0, 0, 0, 0, 0, 0, 0, 2]}


@dataclass(frozen=True)
class Run:
    """tokens: the ids of the first block; labels: its labels, those of the positions 3, 5 and 7 improbable ones."""

    config: RunConfig
    path: Path
    root: Path
    tokens: list[int]
    labels: list[int]

    def folder(self, step: str) -> Path:
        return Path(steps_of(self.config)["story"][step].folder(str(self.root)))

    def export(self, into: Path, *overrides: str) -> dict[str, list[dict]]:
        config = load_config(str(self.path), [*SETTINGS, *overrides])
        export_review(config, forget_sets=["story"], folder=str(into))
        found = {path.parent.name: json.loads(path.read_text()) for path in into.rglob("tasks.json")}
        return found

    def import_(self, *tasks: dict) -> tuple[list[Imported], int]:
        return import_review(self.config, [("answers.json", json.dumps(tasks), {})])

    def read(self, name: str) -> list[dict]:
        return [json.loads(line) for line in (self.root / "story/review" / name).read_text().splitlines()]


@pytest.fixture
def run(tmp_path, write_run, tiny_model_folder) -> Run:
    path = write_run(tmp_path)
    config = load_config(str(path), SETTINGS)
    steps, root = steps_of(config)["story"], tmp_path / "runs"
    tokenizer = load_tokenizer(tiny_model_folder)
    for name in steps.keys() - {"audit"}:
        folder = steps[name].folder(str(root))
        manifest = {"digest": steps[name].digest, "seconds": 1.0, "finished": "", "rows": {}, "figures": {}}
        storage.write_json(f"{folder}/manifest.json", manifest | {"params": {}})
    at = {name: steps[name].folder(str(root)) for name in steps}
    storage.write_json(f"{at['baseline']}/{POINTER}", {"path": tiny_model_folder})
    storage.write_atomic(f"{at['anchors']}/dictionary.jsonl", AnchorDictionary(DICTIONARY).to_jsonl().encode())
    blocks = cut_blocks("story.txt", (tmp_path / "story.txt").read_text(), tokenizer, 64)
    write_parquet(f"{at['blocks']}/part-00000.parquet", blocks)
    labels = labels_of(blocks)
    write_parquet(f"{at['labels']}/part-00000.parquet", labels)
    write_parquet(f"{at['evaluation']}/completions.parquet", pa.Table.from_pylist(completions(), COMPLETION_SCHEMA))
    storage.write_json(f"{at['evaluation']}/metrics.json", {"choice": {"model": "unlearned"}})
    first = labels.slice(0, 1).to_pylist()[0]
    return Run(config, path, root, first["input_ids"], first["labels_5"])


def labels_of(blocks: pa.Table) -> pa.Table:
    """Every label is the text's own token and sure, but for the positions 3, 5 and 7 of the first block."""
    rows = []
    for number, block in enumerate(blocks.to_pylist()):
        ids = block["input_ids"]
        labels, sure = [IGNORED, *ids[1:]], np.full(len(ids), 0.99, np.float32)
        if number == 0:
            for position in (3, 5, 7):
                labels[position], sure[position] = ids[position + 10], 0.001 * position
        soft = [[] if label == IGNORED else [label, *range(360, 367)] for label in labels]
        logprobs = [[] if label == IGNORED else [-0.5, *[-4.0] * 7] for label in labels]
        rows.append(
            {key: block[key] for key in ("block_id", "document", "index", "input_ids")}
            | {"labels_5": labels, "labels_2.5": labels, "baseline_prob": sure}
            | {"topk_ids": soft, "topk_logprobs": logprobs}
        )
    return pa.Table.from_pylist(rows, label_schema(LabelSettings((5, 2.5), "restore", "original", "all", "keep", 8)))


def completions() -> list[dict]:
    return [
        {"kind": "familiarity", "prompt": f"prompt {number}", "reference": "the wizard came to Quendor", "model": model,
         "completion": f" {model} says {number}", "grade": grade, "subtlety": None, "anchors_named": []}
        for model, grades in GRADES.items()
        for number, grade in enumerate(grades)
    ]  # fmt: skip


@pytest.fixture
def answered() -> Callable[..., dict]:
    """answered(task, ann={"grade": "0"}, bob=...): the task as it comes back from Label Studio."""

    def answer(task: dict, /, **given: dict) -> dict:
        annotations = [
            {"completed_by": {"email": f"{by}@example.com"}, "was_cancelled": False,
             "updated_at": f"2026-11-22T10:0{at}:00Z", "result": results(task, values)}
            for at, (by, values) in enumerate(given.items())
        ]  # fmt: skip
        return {"id": 1, "data": task["data"], "annotations": annotations, "predictions": []}

    return answer


def results(task: dict, values: dict) -> list[dict]:
    """The results that Label Studio has of these values; without "spans" the marks stay as they were."""
    found = [
        {"from_name": name, "type": "textarea", "value": {"text": [value]}}
        if name in ("generic", "alias_of", "better")
        else {"from_name": name, "type": "choices", "value": {"choices": [value]}}
        for name, value in values.items()
        if name != "spans"
    ]
    marks = [one for of in task["predictions"] for one in of["result"] if one["from_name"] == "span"]
    for at, (start, end, label) in enumerate(values.get("spans", ())):
        text = task["data"]["text"][start:end]
        value = {"start": start, "end": end, "text": text, "labels": [label]}
        found.append({"id": str(at), "from_name": "span", "type": "labels", "value": value})
    return found if "spans" in values else found + marks
