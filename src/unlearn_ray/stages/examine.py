"""Studies of models on Ray: every study of every model is one shard, and its readings one file.

A killed examination goes on with the readings that lack a file.
"""

import io
import json
import time
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from unlearn_ray.config import Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import map_shards, scoring_pool
from unlearn_ray.evaluation import Readings
from unlearn_ray.stages.baseline import open_model, open_tokenizer

Study = Callable[[PreTrainedModel, PreTrainedTokenizerFast, int], Readings]
"""(model, tokenizer, blocks in a batch) -> readings; it gives the model back as it was."""


def examine(
    out: str,
    models: Mapping[str, str],
    studies: Mapping[str, Study],
    *,
    baseline: str,
    resources: Resources,
    trust_remote_code: bool,
) -> dict[str, dict[str, Readings]]:
    """Makes every study of every model (name -> folder), and returns the readings: study -> model -> Readings.

    They lie in `out`/readings/STUDY/MODEL.npz. baseline: whose tokenizer all models are asked with, so that the items
    stay the same.
    """
    # By model, so that an actor seldom has to open another one.
    files = {
        (model, study): storage.join(out, "readings", study, f"{model}.npz") for model in models for study in studies
    }
    missing = [key for key, file in files.items() if not storage.exists(file)]
    arguments = {
        "baseline": baseline,
        "studies": dict(studies),
        "threads": resources.cpus_per_worker,
        "batch_blocks": resources.evaluation_batch,
        "trust_remote_code": trust_remote_code,
    }
    shards = [
        json.dumps({"model": model, "folder": models[model], "study": study, "file": files[model, study]})
        for model, study in missing
    ]
    started = time.monotonic()
    for done, _ in enumerate(map_shards(shards, scoring_pool(ExamineShard, arguments, resources)), start=1):
        left = (time.monotonic() - started) / done * (len(missing) - done)
        progress = {"step": len(files) - len(missing) + done, "steps": len(files), "seconds_left": left}
        storage.write_json(storage.join(out, "progress.json"), progress)
    storage.remove(storage.join(out, "progress.json"))
    return {study: {model: _read(files[model, study]) for model in models} for study in studies}


class ExamineShard:
    """Makes one study of one model and writes its readings."""

    def __init__(
        self, baseline: str, studies: Mapping[str, Study], threads: int, batch_blocks: int, trust_remote_code: bool
    ):
        torch.set_num_threads(threads)
        self.tokenizer = open_tokenizer(baseline, trust_remote_code)
        self.studies, self.batch_blocks, self.trust_remote_code = studies, batch_blocks, trust_remote_code
        self.folder, self.model = "", None

    def __call__(self, shard: pa.Table) -> pa.Table:
        task = json.loads(shard["shard"][0].as_py())
        if self.model is None or self.folder != task["folder"]:
            self.model = None  # before the next one, since there may not be room for two
            self.folder, self.model = task["folder"], open_model(task["folder"], self.trust_remote_code)
        readings = self.studies[task["study"]](self.model, self.tokenizer, self.batch_blocks)
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, **readings)
        storage.write_atomic(task["file"], data.getvalue())
        return pa.table({"file": [task["file"]]})


def _read(file: str) -> Readings:
    with np.load(io.BytesIO(storage.read_bytes(file)), allow_pickle=False) as arrays:
        return dict(arrays)
