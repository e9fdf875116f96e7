"""From shards to files, whatever their blocks do: one that cannot be labelled, or kills the actor that tries, costs its
own shard alone, and is named.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable

import pyarrow as pa

from unlearn_ray.engine import storage
from unlearn_ray.errors import StepFailed
from unlearn_ray.stages.blocks import write_parquet

BEGUN = ".begun"  # ending of a file beside a shard's: what was tried, for when the trying kills the actor
SUSPICIOUS = 3  # attempts at a shard from which on its blocks are tried one by one

# What an actor tells of a shard.
TOLD_SCHEMA = pa.schema(
    {
        "blocks": pa.int64(),
        "bad": pa.string(),
        "actor": pa.string(),
        "began": pa.float64(),
        "ended": pa.float64(),
    }
)


class ShardWriter:
    """Turns shards into files below `out`, as far as their blocks let it, and tells of each in a row (TOLD_SCHEMA)."""

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
        return pa.Table.from_pylist([row | {"began": began, "ended": time.time()}], TOLD_SCHEMA)


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
                bad[block_id] = told(error)
    if len(bad) == blocks.num_rows > 1:
        raise StepFailed(f"no block of a shard can be labelled: {next(iter(bad.values()))}")
    if bad:
        return None, {int(block_id): problem for block_id, problem in bad.items()}
    return label(blocks), {}  # in the batches of an undisturbed run


def told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"
