"""Labels: blocks -> generic labels, in two pools of actors on Ray Data. Translating, tokenising and aligning run
ahead on CPUs; the labelling actors hold both models and write one file a shard. A killed step goes on with the shards
that lack a file. A block that cannot be labelled, or kills the actor that tries, costs its own shard alone, and is
named when everything else is done.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa
import torch

from unlearn_ray.config import Label, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import Pool, map_shards, one_row, out_of_row, scoring_pool
from unlearn_ray.engine.placement import places
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import StepFailed
from unlearn_ray.labelling import PREPARED_SCHEMA, Labeller, LabelSettings, Preparer, label_text
from unlearn_ray.material import specific_tokens
from unlearn_ray.models import leading_ids
from unlearn_ray.stages.anchors import read_dictionary
from unlearn_ray.stages.baseline import open_model, open_reinforced, open_tokenizer
from unlearn_ray.stages.blocks import read_parquet, read_shard, shards_of, write_parquet

RETAIN_TOP_K = 64  # soft labels of the retain text where the run has none of its own
BEGUN = ".begun"  # ending of a file beside a shard's: what was tried, for when the trying kills the actor
NAMED = 10  # bad blocks that an error names
SUSPICIOUS = 3  # attempts at a shard from which on its blocks are tried one by one
SHARD_SCHEMA = PREPARED_SCHEMA.append(pa.field("shard", pa.string())).append(pa.field("problem", pa.string()))


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


def label(
    run: StepRun, *, settings: LabelSettings, block_tokens: int, resources: Resources, trust_remote_code: bool
) -> dict:
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
        places=places(resources, "cpu"),
    )
    arguments = {
        "baseline": run.inputs["baseline"],
        "reinforced": run.inputs["reinforced"],
        "anchors": run.inputs["anchors"],
        "settings": settings,
        "out": run.out,
        "block_tokens": block_tokens,
        "batch_blocks": resources.batch_blocks,
        "threads": resources.cpus_per_worker,
        "trust_remote_code": trust_remote_code,
    }
    return _over_shards(run.out, "labels", shards, [prepare, scoring_pool(LabelShard, arguments, resources)])


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
        "batch_blocks": resources.evaluation_batch,
        "threads": resources.cpus_per_worker,
        "trust_remote_code": trust_remote_code,
    }
    return _over_shards(run.out, "retain", shards, [scoring_pool(LabelRetainShard, arguments, resources)])


class PrepareShard:
    """One shard -> its prepared blocks (SHARD_SCHEMA) in a row; of one that cannot be prepared only id and problem."""

    def __init__(self, baseline: str, blocks: str, anchors: str, settings: LabelSettings, trust_remote_code: bool):
        self.preparer = Preparer(read_dictionary(anchors), open_tokenizer(baseline, trust_remote_code), settings)
        self.blocks = blocks

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["shard"][0].as_py())
        rows = [self._prepare(block) | {"shard": work["name"]} for block in read_shard(self.blocks, work).to_pylist()]
        return one_row(pa.Table.from_pylist(rows, SHARD_SCHEMA))

    def _prepare(self, block: dict) -> dict:
        try:
            return self.preparer.prepare(block)
        except Exception as error:
            return {"block_id": block["block_id"], "problem": _told(error)}


class LabelShard:
    """The prepared blocks of one shard -> its file of labels."""

    def __init__(
        self,
        baseline: str,
        reinforced: str,
        anchors: str,
        settings: LabelSettings,
        out: str,
        block_tokens: int,
        batch_blocks: int | None,
        threads: int,
        trust_remote_code: bool,
    ):
        torch.set_num_threads(threads)
        tokenizer = open_tokenizer(baseline, trust_remote_code)
        anchor_ids = set().union(*specific_tokens(tokenizer, read_dictionary(anchors)))
        model = open_model(baseline, trust_remote_code)
        self.label = Labeller(
            model,
            open_reinforced(reinforced, model, trust_remote_code),
            leading_ids(tokenizer),
            settings,
            anchor_ids=sorted(anchor_ids),
        )
        self.label.batch_blocks = batch_blocks or self.label.find_batch(block_tokens)
        self.writer = ShardWriter(out)

    def __call__(self, row: pa.Table) -> pa.Table:
        shard = out_of_row(row)
        good = shard.filter(shard["problem"].is_null())
        counts = Counter({"labelled": len(good["positions"].combine_chunks().flatten())})
        for ignored in good["ignored"].to_pylist():
            counts.update(dict(ignored))
        problems = zip(shard["block_id"].to_pylist(), shard["problem"].to_pylist(), strict=True)
        bad = {block_id: problem for block_id, problem in problems if problem}
        return self.writer.write(shard["shard"][0].as_py(), self.label, good.select(PREPARED_SCHEMA.names), counts, bad)


class LabelRetainShard:
    """One shard of retain text -> its file of the baseline's soft labels."""

    def __init__(
        self, baseline: str, blocks: str, top_k: int, out: str, batch_blocks: int, threads: int, trust_remote_code: bool
    ):
        torch.set_num_threads(threads)
        self.label = partial(
            label_text,
            open_model(baseline, trust_remote_code),
            leading_ids(open_tokenizer(baseline, trust_remote_code)),
            top_k=top_k,
            batch_blocks=batch_blocks,
        )
        self.blocks, self.writer = blocks, ShardWriter(out)

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["shard"][0].as_py())
        return self.writer.write(work["name"], self.label, read_shard(self.blocks, work), Counter(), {})


class ShardWriter:
    """Turns shards into files, as far as their blocks let it, and tells of each in a row."""

    def __init__(self, out: str):
        self.out, self.actor = out, uuid.uuid4().hex

    def write(
        self, name: str, label: Callable[[pa.Table], pa.Table], blocks: pa.Table, counts: Counter, bad: dict[int, str]
    ) -> pa.Table:
        """Labels the blocks of a shard; its file is written unless some block is, or proves to be, a bad one.

        The counts travel in the file, so that those of shards from before a crash are not lost.
        """
        began, path = time.time(), storage.join(self.out, name)
        labelled, found = label_or_blame(label, blocks, path + BEGUN)
        bad = bad | found
        if labelled is not None and not bad:
            metadata = {"counts": json.dumps(counts, sort_keys=True)}
            write_parquet(path, labelled.replace_schema_metadata(metadata))
        storage.remove(path + BEGUN)
        row = {"blocks": blocks.num_rows, "bad": json.dumps(bad), "actor": self.actor}
        return pa.Table.from_pylist([row | {"began": began, "ended": time.time()}])


def label_or_blame(
    label: Callable[[pa.Table], pa.Table], blocks: pa.Table, begun: str
) -> tuple[pa.Table | None, dict[int, str]]:
    """label(blocks), or else nothing and what is wrong with which block (block_id -> problem).

    Where that raises, every block is tried alone. The file `begun` counts the attempts and names the block that is
    being tried, so that the actor in the place of one that died can tell which block kills them. Raises StepFailed
    where no block can be labelled: then it is not the blocks.
    """
    past = storage.read_json(begun) if storage.exists(begun) else {"attempts": 0, "trying": None, "bad": {}}
    if past["trying"]:
        past["bad"][past["trying"]] = "the process that labelled it died"
    past |= {"attempts": past["attempts"] + 1, "trying": None}
    storage.write_json(begun, past)
    if past["attempts"] < SUSPICIOUS:
        try:
            return label(blocks), {}
        except Exception:
            pass  # of which block it came shows now
    bad: dict[str, str] = past["bad"]
    for row, block_id in enumerate(map(str, blocks["block_id"].to_pylist())):
        if block_id not in bad:
            storage.write_json(begun, past | {"trying": block_id})
            try:
                label(blocks.slice(row, 1))
            except Exception as error:
                bad[block_id] = _told(error)
    if len(bad) == blocks.num_rows > 1:
        raise StepFailed(f"no block of a shard can be labelled: {next(iter(bad.values()))}")
    if bad:
        return None, {int(block_id): problem for block_id, problem in bad.items()}
    return label(blocks), {}  # in the batches of an undisturbed run


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


def _over_shards(out: str, name: str, shards: list[dict], pools: list[Pool]) -> dict:
    """Sends the shards without a file through the pools; returns the counts of all of them, and the share of time in
    which the actors of the last pool had work. Raises StepFailed with every block that could not be labelled.
    """
    there = {PurePosixPath(file).name for file in storage.list_files(out)}
    for file in there:
        if file.endswith(BEGUN):
            storage.remove(storage.join(out, file))  # of an earlier run: the trouble may be mended
    missing = [json.dumps(shard) for shard in shards if shard["name"] not in there]
    done = list(map_shards(name, missing, *pools))
    if bad := {block_id: problem for row in done for block_id, problem in json.loads(row["bad"]).items()}:
        named = "; ".join(f"block_id {block_id}: {problem}" for block_id, problem in list(bad.items())[:NAMED])
        raise StepFailed(
            f"{name}: {len(bad)} blocks cannot be labelled ({named}{'; ...' if len(bad) > NAMED else ''}); "
            "everything beside their shards is done and kept"
        )
    tables = [read_parquet(storage.join(out, shard["name"]), ["block_id"]) for shard in shards]
    found, wanted = sum(table.num_rows for table in tables), sum(_size(shard) for shard in shards)
    if found != wanted:
        raise StepFailed(f"{name}: {found} of {wanted} blocks came out; remove {out} and run again")
    counts: Counter = Counter()
    for table in tables:
        counts.update(json.loads((table.schema.metadata or {}).get(b"counts", b"{}")))
    made = sum(row["blocks"] for row in done)
    rows = {"blocks": found, "made_now": made, "found_done": found - made}
    return {"rows": rows, "positions": dict(counts)} | ({"actors_busy": _busy(done)} if done else {})


def _busy(done: list[dict]) -> float:
    """The share of the time from an actor's first block to its last in which it labelled, over all actors."""
    actors = {row["actor"] for row in done}
    spans = [[row for row in done if row["actor"] == actor] for actor in actors]
    there = sum(max(row["ended"] for row in rows) - min(row["began"] for row in rows) for rows in spans)
    return round(sum(row["ended"] - row["began"] for row in done) / there, 4)


def _size(shard: dict) -> int:
    return sum(len(rows) for rows in shard["rows"].values())
