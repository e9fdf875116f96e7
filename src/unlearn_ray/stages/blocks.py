"""Documents -> blocks: every document is tokenised whole on Ray Data and cut into blocks; one parquet file a document
file.
"""

import hashlib
import io
import json
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unlearn_ray.config import Resources
from unlearn_ray.documents import document_names, read_document
from unlearn_ray.engine import storage
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.engine.placement import places
from unlearn_ray.engine.steps import StepRun, root_of
from unlearn_ray.errors import InputError
from unlearn_ray.method.blocks import BLOCK_SCHEMA, cut_blocks
from unlearn_ray.stages.baseline import open_tokenizer

KEPT = "shared/tokenised"  # below the root: the blocks of documents that several sets have
_GUARD, _LOCKS = threading.Lock(), dict[str, threading.Lock]()
UNION = "union.json"  # in a step of its own: the folders, below the root, whose rows together are its rows
SHARD_BLOCKS = 64  # blocks in a shard: the unit of labelling, of its files and of restart


def cut_documents(
    run: StepRun,
    *,
    documents: Sequence[str],
    block_tokens: int,
    resources: Resources,
    trust_remote_code: bool,
    shared: Collection[str] = (),
) -> dict:
    """Writes part-N.parquet (BLOCK_SCHEMA) for the N-th file; returns counts, and the blocks in each part.

    shared: those of the documents that other sets have too. They are tokenised once, by the first set that comes to
    them, and kept below the root for the others.
    """
    named = document_names(documents)
    kept = {path: _place(run, path, named[path], block_tokens) for path in named if path in shared}
    shards = [
        json.dumps({"path": path, "name": name, "part": f"part-{number:05d}.parquet", "kept": kept.get(path)})
        for number, (path, name) in enumerate(named.items())
    ]
    arguments = {
        "baseline": run.inputs["baseline"],
        "block_tokens": block_tokens,
        "out": run.out,
        "trust_remote_code": trust_remote_code,
    }
    pool = Pool(CutDocuments, arguments, workers=resources.workers, places=places(resources, "cpu"))
    with _alone_with(kept.values()):
        parts = sorted(map_shards(shards, pool), key=lambda part: part["part"])
    _refuse_one_id_twice(run.out)
    return {
        "rows": {key: sum(part[key] for part in parts) for key in ("documents", "blocks", "tokens")},
        "found_tokenised": sum(part["found"] for part in parts),
        "parts": {part["part"]: part["blocks"] for part in parts},
    }


class CutDocuments:
    """One file of documents -> one parquet file of blocks, and a row of counts."""

    def __init__(self, baseline: str, block_tokens: int, out: str, trust_remote_code: bool):
        self.tokenizer = open_tokenizer(baseline, trust_remote_code)
        self.block_tokens, self.out = block_tokens, out

    def __call__(self, shard: pa.Table) -> pa.Table:
        work = json.loads(shard["shard"][0].as_py())
        if work["kept"] and storage.exists(work["kept"]):
            blocks, found = read_parquet(work["kept"]), True
        else:
            documents = read_document(work["path"], work["name"], storage.read_bytes)
            tables = [cut_blocks(name, text, self.tokenizer, self.block_tokens) for name, text in documents]
            blocks, found = pa.concat_tables(tables), False
            if work["kept"]:
                write_parquet(work["kept"], blocks)
        write_parquet(storage.join(self.out, work["part"]), blocks)
        tokens = len(blocks["input_ids"].combine_chunks().flatten())
        documents = len(blocks["document"].unique())
        counts = {"part": work["part"], "documents": documents, "blocks": blocks.num_rows, "tokens": tokens}
        return pa.Table.from_pylist([counts | {"found": found}])


def _place(run: StepRun, path: str, name: str, block_tokens: int) -> str:
    """Where the blocks of a shared document are kept: by all that they depend on."""
    identity = [storage.sha256_of(path), name, block_tokens, PurePosixPath(run.inputs["baseline"]).name]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return storage.join(root_of(run.out), KEPT, f"{key}.parquet")


@contextmanager
def _alone_with(places: Iterable[str]) -> Iterator[None]:
    """While one set cuts shared documents, others that have some of them wait: they find them done. Drivers do not wait
    for each other: the same file is written twice then."""
    with ExitStack() as held:
        for place in sorted(places):
            with _GUARD:
                lock = _LOCKS.setdefault(place, threading.Lock())
            held.enter_context(lock)
        yield


def shards_of(folder: str, at_most: int | None = None) -> list[dict]:
    """The blocks of a step as shards of SHARD_BLOCKS rows, {"name", "rows": {part: [row, ...]}}; with `at_most`, a
    sample of so many blocks that covers the documents evenly.
    """
    parts: Mapping[str, int] = storage.read_json(storage.join(folder, "manifest.json"))["figures"]["parts"]
    rows = [(part, row) for part, count in parts.items() for row in range(count)]
    if at_most is not None and at_most < len(rows):
        rows = [rows[row] for row in np.linspace(0, len(rows) - 1, at_most).round().astype(int)]
    shards = []
    for start in range(0, len(rows), SHARD_BLOCKS):
        taken: dict[str, list[int]] = {}
        for part, row in rows[start : start + SHARD_BLOCKS]:
            taken.setdefault(part, []).append(row)
        shards.append({"name": f"part-{start // SHARD_BLOCKS:05d}.parquet", "rows": taken})
    return shards


def read_shard(folder: str, shard: dict) -> pa.Table:
    """The blocks of one shard, in order."""
    return pa.concat_tables(read_parquet(storage.join(folder, part)).take(rows) for part, rows in shard["rows"].items())


def read_blocks(folder: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a step's parquet files, in order; of those that it unites where it holds none itself."""
    there = storage.list_files(folder)
    if storage.join(folder, UNION) in there:
        united = storage.read_json(storage.join(folder, UNION))["folders"]
        return pa.concat_tables([read_blocks(storage.join(root_of(folder), one), columns) for one in united])
    files = [file for file in there if file.endswith(".parquet")]
    return pa.concat_tables([read_parquet(file, columns) for file in files]) if files else BLOCK_SCHEMA.empty_table()


def read_parquet(path: str, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read_bytes(path)), columns=columns)


def write_parquet(path: str, table: pa.Table) -> None:
    """A whole parquet file or nothing."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    storage.write_atomic(path, sink.getvalue())


def _refuse_one_id_twice(folder: str) -> None:
    ids = read_blocks(folder, ["block_id"])["block_id"].to_numpy()
    if len(np.unique(ids)) < len(ids):
        raise InputError("two blocks have one id: the same document is there twice under one name")
