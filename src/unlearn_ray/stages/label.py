"""Labels: blocks -> generic labels, in two pools of actors on Ray Data. Translating, tokenising and aligning run
ahead on CPUs; the labelling actors hold both models and write one file a shard. A killed step goes on with the shards
that lack a file.
"""

import json
from collections import Counter
from pathlib import PurePosixPath

import pyarrow as pa
import torch

from unlearn_ray.config import Label, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.engine.session import gpus_per_worker
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import StepFailed
from unlearn_ray.labelling import Labeller, LabelSettings, Preparer, label_text
from unlearn_ray.material import specific_tokens
from unlearn_ray.models import leading_ids
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.baseline import open_model, open_tokenizer
from unlearn_ray.stages.blocks import read_parquet, read_shard, shards_of, write_parquet

RETAIN_TOP_K = 64  # soft labels of the retain text where the run has none of its own


def label_settings(settings: Label, alpha: float) -> LabelSettings:
    """The alpha that is trained on comes first: soft labels and baseline_prob are its own."""
    others = (other for other in settings.alpha if other != alpha)
    return LabelSettings(
        (alpha, *others),
        settings.consistency,
        settings.inside_anchors,
        settings.scope,
        settings.unnamed_anchors,
        settings.top_k,
    )


def label(run: StepRun, *, settings: LabelSettings, resources: Resources, trust_remote_code: bool) -> dict:
    """Inputs: baseline, blocks, anchors, reinforced. Writes part-N.parquet (labelling.label_schema)."""
    shards = shards_of(run.inputs["blocks"])
    prepare = Pool(
        PrepareShard,
        {
            "baseline": run.inputs["baseline"],
            "blocks": run.inputs["blocks"],
            "anchors": run.inputs["anchors"],
            "settings": settings,
            "trust_remote_code": trust_remote_code,
        },
        workers=resources.workers,
        cpus=0.5,  # they wait for the models most of the time
    )
    arguments = {
        "baseline": run.inputs["baseline"],
        "reinforced": run.inputs["reinforced"],
        "anchors": run.inputs["anchors"],
        "settings": settings,
        "out": run.out,
        "batch_blocks": resources.batch_blocks,
        "threads": resources.cpus_per_worker,
        "trust_remote_code": trust_remote_code,
    }
    return _over_shards(run.out, "labels", shards, [prepare, _scoring_pool(LabelShard, arguments, resources)])


def label_retain(run: StepRun, *, at_most: int, top_k: int, resources: Resources, trust_remote_code: bool) -> dict:
    """Inputs: baseline, blocks (of the retain text). Writes the baseline's own soft labels of a sample of at most so
    many blocks, so that holding the model to the baseline needs no second model in training.
    """
    shards = shards_of(run.inputs["blocks"], at_most)
    arguments = {
        "baseline": run.inputs["baseline"],
        "blocks": run.inputs["blocks"],
        "top_k": top_k or RETAIN_TOP_K,
        "out": run.out,
        "batch_blocks": resources.batch_blocks,
        "threads": resources.cpus_per_worker,
        "trust_remote_code": trust_remote_code,
    }
    return _over_shards(run.out, "retain", shards, [_scoring_pool(LabelRetainShard, arguments, resources)])


class PrepareShard:
    """One shard -> its prepared blocks, with the shard's name beside each."""

    def __init__(self, baseline: str, blocks: str, anchors: str, settings: LabelSettings, trust_remote_code: bool):
        self.prepare = Preparer(read_dictionary(anchors), open_tokenizer(baseline, trust_remote_code), settings)
        self.blocks = blocks

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["shard"][0].as_py())
        prepared = self.prepare(read_shard(self.blocks, work))
        return prepared.append_column("shard", pa.array([work["name"]] * prepared.num_rows))


class LabelShard:
    """The prepared blocks of one shard -> its file of labels."""

    def __init__(
        self,
        baseline: str,
        reinforced: str,
        anchors: str,
        settings: LabelSettings,
        out: str,
        batch_blocks: int,
        threads: int,
        trust_remote_code: bool,
    ):
        torch.set_num_threads(threads)
        tokenizer = open_tokenizer(baseline, trust_remote_code)
        anchor_ids = set().union(*specific_tokens(tokenizer, read_dictionary(anchors)))
        self.label = Labeller(
            open_model(baseline, trust_remote_code, scoring=True),
            open_model(reinforced, trust_remote_code, scoring=True),
            leading_ids(tokenizer),
            settings,
            anchor_ids=sorted(anchor_ids),
            batch_blocks=batch_blocks,
        )
        self.out = out

    def __call__(self, prepared: pa.Table) -> pa.Table:
        [name] = prepared["shard"].unique().to_pylist()
        counts = Counter({"labelled": len(prepared["positions"].combine_chunks().flatten())})
        for ignored in prepared["ignored"].to_pylist():
            counts.update(dict(ignored))
        return _written(self.out, name, self.label(prepared.drop_columns(["shard"])), counts)


class LabelRetainShard:
    """One shard of retain text -> its file of the baseline's soft labels."""

    def __init__(
        self, baseline: str, blocks: str, top_k: int, out: str, batch_blocks: int, threads: int, trust_remote_code: bool
    ):
        torch.set_num_threads(threads)
        self.model = open_model(baseline, trust_remote_code, scoring=True)
        self.leading = leading_ids(open_tokenizer(baseline, trust_remote_code))
        self.blocks, self.top_k, self.out, self.batch_blocks = blocks, top_k, out, batch_blocks

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["shard"][0].as_py())
        blocks = read_shard(self.blocks, work)
        labelled = label_text(self.model, self.leading, blocks, self.top_k, batch_blocks=self.batch_blocks)
        return _written(self.out, work["name"], labelled, Counter())


def _scoring_pool(callable_class: type, arguments: dict, resources: Resources) -> Pool:
    return Pool(
        callable_class,
        arguments,
        workers=resources.workers,
        cpus=resources.cpus_per_worker,
        gpus=gpus_per_worker(resources),
    )


def _written(out: str, name: str, labelled: pa.Table, counts: Counter) -> pa.Table:
    """Writes a shard; its counts travel in the file, so that those of shards from before a crash are not lost."""
    write_parquet(
        storage.join(out, name), labelled.replace_schema_metadata({"counts": json.dumps(counts, sort_keys=True)})
    )
    return pa.table({"shard": [name], "blocks": [labelled.num_rows]})


def _over_shards(out: str, name: str, shards: list[dict], pools: list[Pool]) -> dict:
    """Sends the shards without a file through the pools; returns the counts of all of them."""
    there = {PurePosixPath(file).name for file in storage.list_files(out)}
    missing = [json.dumps(shard) for shard in shards if shard["name"] not in there]
    made = sum(row["blocks"] for row in map_shards(name, missing, *pools))
    tables = [read_parquet(storage.join(out, shard["name"]), ["block_id"]) for shard in shards]
    found, wanted = sum(table.num_rows for table in tables), sum(_size(shard) for shard in shards)
    if found != wanted:
        raise StepFailed(f"{name}: {found} of {wanted} blocks came out; remove {out} and run again")
    counts: Counter = Counter()
    for table in tables:
        counts.update(json.loads((table.schema.metadata or {}).get(b"counts", b"{}")))
    return {"rows": {"blocks": found, "made_now": made, "found_done": found - made}, "positions": dict(counts)}


def _size(shard: dict) -> int:
    return sum(len(rows) for rows in shard["rows"].values())
