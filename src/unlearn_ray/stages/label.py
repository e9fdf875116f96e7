"""Labels: blocks -> generic labels, in two pools of actors on Ray Data. Translating, tokenising and aligning run
ahead on CPUs; the labelling actors hold both models and write one file a shard. A killed step goes on with the shards
that lack a file. Forget sets go through the same actors one after another: the baseline is loaded once, and only what
is a set's own is changed.
"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import PurePosixPath

from unlearn_ray.config import Label, Resources
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import Pool, map_shards, scoring_pool
from unlearn_ray.engine.placement import places
from unlearn_ray.engine.steps import StepRun
from unlearn_ray.errors import StepFailed
from unlearn_ray.labelling import LabelSettings
from unlearn_ray.stages.blocks import read_parquet, shards_of
from unlearn_ray.stages.holds import PREPARER_CPUS
from unlearn_ray.stages.label_actors import LabelRetainShard, LabelShard, OneSet, PrepareShard
from unlearn_ray.stages.shard_writer import BEGUN

RETAIN_TOP_K = 64  # soft labels of the retain text where the run has none of its own
NAMED = 10  # bad blocks that an error names


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
        settings.recitation_cap,
    )


def label(
    run: StepRun, *, settings: LabelSettings, block_tokens: int, resources: Resources, trust_remote_code: bool
) -> dict:
    """Inputs: baseline, blocks, anchors, reinforced. Writes part-N.parquet (labelling.label_schema)."""
    mine = OneSet(run.inputs["blocks"], run.inputs["anchors"], run.inputs["reinforced"], run.out)
    # Alike for all sets of a run, so that actors go on to the next set with what they have loaded.
    preparing = {
        "baseline": run.inputs["baseline"],
        "settings": settings,
        "trust_remote_code": trust_remote_code,
    }
    scoring = preparing | {
        "block_tokens": block_tokens,
        "batch_blocks": resources.batch_blocks,
        "threads": resources.cpus_per_worker,
    }
    pools = [
        Pool(PrepareShard, preparing, resources.workers, PREPARER_CPUS, places=places(resources, "cpu")),
        scoring_pool(LabelShard, scoring, resources),
    ]
    shards = shards_of(mine.blocks)
    missing = [json.dumps({"set": asdict(mine)} | shard) for shard in _missing(run.out, shards)]
    return _figures(run.out, "labels", shards, list(map_shards(missing, *pools)))


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
    missing = [json.dumps(shard) for shard in _missing(run.out, shards)]
    pool = scoring_pool(LabelRetainShard, arguments, resources)
    return _figures(run.out, "retain", shards, list(map_shards(missing, pool)))


def _missing(out: str, shards: list[dict]) -> list[dict]:
    """The shards without a file."""
    there = {PurePosixPath(file).name for file in storage.list_files(out)}
    for file in there:
        if file.endswith(BEGUN):
            storage.remove(storage.join(out, file))  # of an earlier run: the trouble may be mended
    return [shard for shard in shards if shard["name"] not in there]


def _figures(out: str, name: str, shards: list[dict], done: list[dict]) -> dict:
    """The counts of all shards, and the share of time in which the actors had work, by what they told of those that
    were done now. Raises StepFailed with every block that could not be labelled.
    """
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
