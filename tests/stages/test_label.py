"""Labelling with blocks that cannot be labelled: on real Ray, with the tiny model."""

import io
import json
import os
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unlearn_ray import pipeline
from unlearn_ray.config import RunConfig, load_config
from unlearn_ray.engine.data import Pool, map_shards
from unlearn_ray.errors import StepFailed
from unlearn_ray.stages.shard_writer import SUSPICIOUS, ShardWriter, label_or_blame

BLOCKS = pa.table({"block_id": [11, 22, 33]})


class Killed(BaseException):
    """What a test raises where a process would die."""


def labelled(table: pa.Table, calls: list, raises=(), kills=()) -> pa.Table:
    ids = table["block_id"].to_pylist()
    calls.append(ids)
    if set(ids) & set(kills):
        raise Killed
    if set(ids) & set(raises):
        raise ValueError("cannot be read\nat all")
    return table


def test_good_blocks_are_labelled_together(tmp_path):
    calls = []
    found, bad = label_or_blame(partial(labelled, calls=calls), BLOCKS, str(tmp_path / "begun"))
    assert found == BLOCKS and not bad and calls == [[11, 22, 33]]


def test_a_block_that_raises_is_named(tmp_path):
    found, bad = label_or_blame(partial(labelled, calls=[], raises=[22]), BLOCKS, str(tmp_path / "begun"))
    assert found is None and bad == {22: "ValueError: cannot be read"}


def test_what_all_blocks_raise_is_not_their_fault(tmp_path):
    with pytest.raises(StepFailed, match="no block of a shard can be labelled: ValueError: cannot be read"):
        label_or_blame(partial(labelled, calls=[], raises=[11, 22, 33]), BLOCKS, str(tmp_path / "begun"))


def test_a_block_that_kills_is_named_after_some_deaths(tmp_path):
    begun, calls = str(tmp_path / "begun"), []
    work = partial(labelled, calls=calls, kills=[22])
    for _ in range(SUSPICIOUS):
        with pytest.raises(Killed):
            label_or_blame(work, BLOCKS, begun)
    assert calls[-2:] == [[11], [22]]
    assert label_or_blame(work, BLOCKS, begun) == (None, {22: "the process that labelled it died"})
    assert calls[-2:] == [[11], [33]]


def test_deaths_that_no_block_caused_change_nothing(tmp_path):
    begun, calls = str(tmp_path / "begun"), []
    for _ in range(SUSPICIOUS + 2):
        with pytest.raises(Killed):
            label_or_blame(partial(labelled, calls=[], kills=[11, 22, 33]), BLOCKS, begun)
        Path(begun).write_text(json.dumps(json.loads(Path(begun).read_text()) | {"trying": None}))
    found, bad = label_or_blame(partial(labelled, calls=calls), BLOCKS, begun)
    assert found == BLOCKS and not bad and calls[-1] == [11, 22, 33]


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_run, local_ray) -> RunConfig:
    """A run of several shards, done as far as the dictionary."""
    path = write_run(tmp_path_factory.mktemp("run"), stories=8)
    config = load_config(str(path), ["label.block_tokens=16", "resources.workers=2"])
    for outcome in pipeline.run(config, until="anchors"):
        assert outcome.error is None, outcome.error
    return config


def run_labels(config: RunConfig) -> tuple[Path, Exception | None]:
    outcome = next(o for o in pipeline.run(config, until="labels") if o.step.stage == "labels")
    return Path(outcome.folder), outcome.error


def test_bad_blocks_are_named_when_the_rest_is_done_and_their_shards_redone_when_they_are_mended(config):
    [part] = Path(config.root).glob("story/blocks-*/*.parquet")
    whole = part.read_bytes()
    blocks = pq.read_table(io.BytesIO(whole)).to_pylist()
    assert len(blocks) > 128  # three shards
    blocks[70]["input_ids"][3] = 10**6  # no such token: the models raise
    blocks[75]["text"] = None  # cannot be prepared
    pq.write_table(pa.Table.from_pylist(blocks, pq.read_schema(part)), part)
    folder, error = run_labels(config)
    assert isinstance(error, StepFailed) and "2 blocks cannot be labelled" in str(error)
    assert f"block_id {blocks[70]['block_id']}: IndexError" in str(error)
    assert f"block_id {blocks[75]['block_id']}: TypeError" in str(error)
    names = sorted(file.name for file in folder.glob("part-*"))
    assert names == ["part-00000.parquet", "part-00002.parquet"]
    before = {name: (folder / name).stat().st_mtime_ns for name in names}

    part.write_bytes(whole)
    folder, error = run_labels(config)
    assert error is None
    assert {name: (folder / name).stat().st_mtime_ns for name in names} == before
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows"] == {"blocks": len(blocks), "made_now": 64, "found_done": len(blocks) - 64}
    assert 0 < manifest["figures"]["actors_busy"] <= 1


class DeadlyShard:
    """A labelling actor that one block kills."""

    def __init__(self, out: str, deadly: int):
        self.writer, self.deadly = ShardWriter(out), deadly

    def __call__(self, shard: pa.Table) -> pa.Table:
        name = shard["shard"][0].as_py()
        ids = pa.table({"block_id": [10 * int(name), 10 * int(name) + 1]})
        return self.writer.write(name, self.label, ids, {}, {})

    def label(self, blocks: pa.Table) -> pa.Table:
        if self.deadly in blocks["block_id"].to_pylist():
            os._exit(1)
        return blocks


def test_a_block_that_kills_every_actor_is_found_by_those_that_follow(tmp_path, local_ray):
    pool = Pool(DeadlyShard, {"out": str(tmp_path), "deadly": 21}, cpus=0.5)
    rows = list(map_shards(["1", "2", "3"], pool))
    assert [json.loads(row["bad"]) for row in rows if json.loads(row["bad"])] == [
        {"21": "the process that labelled it died"}
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1", "3"]
