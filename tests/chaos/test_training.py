"""A fine-tuning on two workers while one of them, or its node, is killed: it goes on by itself, to the same weights."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Enough steps, with a state every few of them, to be killed between two.
OVERRIDES = ["label.block_tokens=32", "reinforce.epochs=8", "reinforce.global_batch=8", "resources.save_every=10",
             "resources.workers=2", "resources.deepspeed=configs/deepspeed/zero2.json"]  # fmt: skip


@pytest.fixture
def undisturbed(start, finish, config) -> Path:
    """The root of a run that nobody killed; every test goes on from a copy of it without the reinforced model."""
    root = config.parent / "undisturbed"
    if not list(root.glob("story/reinforced-*/manifest.json")):
        finish(start("reinforced", root, *OVERRIDES))
    assert restarts(root) == 0
    return root


def copied(undisturbed: Path, to: Path) -> Path:
    shutil.copytree(undisturbed, to, ignore=shutil.ignore_patterns("reinforced-*"))
    return to


def reinforced(root: Path) -> Path:
    [folder] = root.glob("story/reinforced-*")
    return folder


def weights(root: Path) -> bytes:
    return (reinforced(root) / "model.safetensors").read_bytes()


def restarts(root: Path) -> int:
    return json.loads((reinforced(root) / "manifest.json").read_text())["figures"]["restarts"]


def wait_for_a_state(root: Path, program: subprocess.Popen[str]) -> None:
    """Until two states are on disk, of which one is complete."""
    while len(list(root.glob("story/reinforced-*/saves/step-*/zero2-*.pt"))) < 3:
        assert program.poll() is None, program.communicate()[0]
        time.sleep(0.005)


def training_workers(root: psutil.Process) -> list[psutil.Process]:
    return [process for process in root.children(recursive=True) if "RayTrainWorker" in " ".join(process.cmdline())]


def test_a_killed_worker_changes_no_weight(start, finish, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "killed")
    program = start("reinforced", root, *OVERRIDES)
    wait_for_a_state(root, program)
    workers = training_workers(psutil.Process(program.pid))
    assert len(workers) == 2
    workers[1].kill()
    finish(program)
    assert restarts(root) == 1
    assert weights(root) == weights(undisturbed)
    assert not list(reinforced(root).glob("saves/**/*.pt"))


def test_a_killed_node_changes_no_weight(start, finish, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "node")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=4) for _ in range(2)]
        program = start("reinforced", root, *OVERRIDES, address=cluster.address)
        wait_for_a_state(root, program)
        raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
        [working, *_] = [node for node, raylet in zip(nodes, raylets, strict=True) if training_workers(raylet)]
        cluster.remove_node(working, allow_graceful=False)
        finish(program)
    finally:
        cluster.shutdown()
    assert restarts(root) == 1
    assert weights(root) == weights(undisturbed)
