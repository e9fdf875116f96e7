"""Labelling while its actors and nodes are killed: it goes on by itself, and every label is the same."""

import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

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


def labelling_actors(root: psutil.Process) -> list[psutil.Process]:
    return [process for process in root.children(recursive=True) if "LabelShard" in " ".join(process.cmdline())]


def test_three_actors_give_the_labels_of_one(start, finish, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "three")
    finish(start("labels", root, *OVERRIDES, "resources.workers=3"))
    assert labels(root) == labels(undisturbed)


def test_a_killed_actor_changes_no_label(start, finish, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "killed")
    program = start("labels", root, *OVERRIDES, "resources.workers=2")
    wait_for_labels(root, program)
    actors = labelling_actors(psutil.Process(program.pid))
    assert len(actors) == 2 and len(labels(root)) < len(labels(undisturbed))
    actors[0].kill()
    finish(program)
    assert labels(root) == labels(undisturbed)


def test_a_killed_node_changes_no_label(start, finish, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "node")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=4) for _ in range(2)]
        program = start("labels", root, *OVERRIDES, "resources.workers=2", address=cluster.address)
        wait_for_labels(root, program)
        raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
        [working, *_] = [node for node, raylet in zip(nodes, raylets, strict=True) if labelling_actors(raylet)]
        assert len(labels(root)) < len(labels(undisturbed))
        cluster.remove_node(working, allow_graceful=False)
        finish(program)
    finally:
        cluster.shutdown()
    assert labels(root) == labels(undisturbed)
