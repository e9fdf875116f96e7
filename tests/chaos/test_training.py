"""A fine-tuning on two workers while one of them, or its node, is killed: it goes on by itself, to the same weights."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

# Enough steps, with a state every few of them, to be killed between two.
OVERRIDES = ["label.block_tokens=32", "reinforce.epochs=5", "reinforce.global_batch=8", "resources.save_every=10",
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


@pytest.mark.long
def test_a_killed_worker_changes_no_weight(start, finish, workers_of, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "killed")
    program = start("reinforced", root, *OVERRIDES)
    wait_for_a_state(root, program)
    workers = workers_of(program, "RayTrainWorker")
    assert len(workers) == 2
    workers[1].kill()
    finish(program)
    assert restarts(root) == 1
    assert weights(root) == weights(undisturbed)
    assert not list(reinforced(root).glob("saves/**/*.pt"))


@pytest.mark.slow
def test_a_node_that_is_taken_away_changes_no_weight(start, finish, two_nodes, undisturbed, tmp_path):
    root = copied(undisturbed, tmp_path / "node")
    address, pre_empt = two_nodes
    program = start("reinforced", root, *OVERRIDES, address=address)
    wait_for_a_state(root, program)
    pre_empt("RayTrainWorker")
    finish(program)
    assert weights(root) == weights(undisturbed)
