"""Labelling while its actors and nodes are killed: it goes on by itself, and every label is the same."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

# Many shards, and a forward pass for every block, so that there is a time with some of them written.
OVERRIDES = ["label.block_tokens=16", "resources.batch_blocks=1", "reinforce.global_batch=64"]


def labels(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in root.glob("story/labels-*/part-*.parquet")}


@pytest.fixture
def undisturbed(start, finish, config) -> Path:
    """The root of a run with one labelling actor; every test goes on from a copy of it without the labels."""
    root = config.parent / "undisturbed"
    if not list(root.glob("story/labels-*/manifest.json")):
        finish(start("labels", root, *OVERRIDES))
    assert len(labels(root)) > 6
    return root


def copied(undisturbed: Path, to: Path) -> Path:
    shutil.copytree(undisturbed, to, ignore=shutil.ignore_patterns("labels-*"))
    return to


def wait_for_labels(root: Path, program: subprocess.Popen[str]) -> None:
    while not labels(root):
        assert program.poll() is None, program.communicate()[0]
        time.sleep(0.005)


@pytest.mark.long
def test_killed_actors_of_several_change_no_label_of_one(start, finish, workers_of, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "killed")
    program = start("labels", root, *OVERRIDES, "resources.workers=2")
    wait_for_labels(root, program)
    actors = workers_of(program, "ShardServer")
    assert len(actors) == 4 and len(labels(root)) < len(labels(undisturbed))
    for actor in actors[:3]:  # of both pools at least one
        actor.kill()
    finish(program)
    assert labels(root) == labels(undisturbed)


@pytest.mark.slow
def test_a_node_that_is_taken_away_changes_no_label(start, finish, two_nodes, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "node")
    address, pre_empt = two_nodes
    program = start("labels", root, *OVERRIDES, "resources.workers=2", address=address)
    wait_for_labels(root, program)
    assert len(labels(root)) < len(labels(undisturbed))
    pre_empt("ShardServer")
    finish(program)
    assert labels(root) == labels(undisturbed)
