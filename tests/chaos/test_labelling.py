"""Labelling while its actors and nodes are killed: it goes on by itself, and every label is the same."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Many shards, and a forward pass for every block, so that there is a time with some of them written.
OVERRIDES = ["label.block_tokens=16", "resources.batch_blocks=1", "reinforce.global_batch=64"]
PROGRAM = """
import sys
from unlearn_ray import load_config, pipeline
root, config, *overrides = sys.argv[1:]
for outcome in pipeline.run(load_config(config, ["root=" + root, *overrides]), until="labels"):
    if outcome.error:
        raise outcome.error
"""


@pytest.fixture
def ray_folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="ur-", dir="/tmp")  # the names of Ray's sockets have to be short
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start(config, ray_folder, kill_ours) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(root, *overrides, address=None): a run as far as the labels, as a program of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(root: Path, *overrides: str, address: str | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {"RAY_TMPDIR": ray_folder} | ({"RAY_ADDRESS": address} if address else {})
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(root), str(config), *OVERRIDES, *overrides],
                env=environment,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for program in started:
        program.kill()
        program.communicate()
        kill_ours(program.pid, ray_folder)


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_run) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), stories=32)


def finish(program: subprocess.Popen[str]) -> None:
    output, _ = program.communicate(timeout=400)
    assert program.returncode == 0, output


def labels(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in root.glob("story/labels-*/part-*.parquet")}


@pytest.fixture
def undisturbed(start, config) -> Path:
    """The root of a run with one labelling actor; every test goes on from a copy of it without the labels."""
    root = config.parent / "undisturbed"
    if not list(root.glob("story/labels-*/manifest.json")):
        finish(start(root))
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


def test_three_actors_give_the_labels_of_one(start, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "three")
    finish(start(root, "resources.workers=3"))
    assert labels(root) == labels(undisturbed)


def test_a_killed_actor_changes_no_label(start, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "killed")
    program = start(root, "resources.workers=2")
    wait_for_labels(root, program)
    actors = labelling_actors(psutil.Process(program.pid))
    assert len(actors) == 2 and len(labels(root)) < len(labels(undisturbed))
    actors[0].kill()
    finish(program)
    assert labels(root) == labels(undisturbed)


def test_a_killed_node_changes_no_label(start, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "node")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=4) for _ in range(2)]
        program = start(root, "resources.workers=2", address=cluster.address)
        wait_for_labels(root, program)
        raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
        [working, *_] = [node for node, raylet in zip(nodes, raylets, strict=True) if labelling_actors(raylet)]
        assert len(labels(root)) < len(labels(undisturbed))
        cluster.remove_node(working, allow_graceful=False)
        finish(program)
    finally:
        cluster.shutdown()
    assert labels(root) == labels(undisturbed)
