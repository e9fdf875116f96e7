"""The whole command, killed in its stages and started again: it goes on, and the result is the same."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import kill_ours

pytestmark = pytest.mark.timeout(1500)

# What has come into being when the run is killed, below the folder of the forget set. Labels: some shards of several;
# trainings: a state to go on from, for the second after a checkpoint.
KILLED_AT = {
    "blocks": "blocks-*/attempt.json",
    "reinforced": "reinforced-*/saves/step-4/*.pt",
    "anchors": "anchors-*/attempt.json",
    "labels": "labels-*/part-00000.parquet",
    "unlearned": "unlearned-*/saves/step-8/*.pt",
    "evaluation": "evaluation-*/attempt.json",
}
# Several shards of labels, and a forward pass for every block, so that there is a time with some of them written.
OVERRIDES = ["label.block_tokens=16", "resources.batch_blocks=1", "reinforce.global_batch=16",
             "unlearn.global_batch=16", "unlearn.checkpoint_every=6", "resources.save_every=4"]  # fmt: skip


@dataclass
class Command:
    """`unlearn-ray run` on one root, as a program of its own in its own Unix session."""

    config: Path
    root: Path
    ray_folder: str

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "unlearn_ray", "run", str(self.config), f"root={self.root}", *OVERRIDES],
            env=os.environ | {"RAY_TMPDIR": self.ray_folder},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> None:
        driver = self.start()
        output, _ = driver.communicate(timeout=400)
        kill_ours(driver.pid, self.ray_folder)
        assert driver.returncode == 0, output

    def kill_when(self, pattern: str) -> None:
        """SIGKILL for the driver as soon as the pattern matches, and then for what it leaves of its Ray."""
        driver = self.start()
        while not any((self.root / "story").glob(pattern)):
            assert driver.poll() is None, f"ended before {pattern}: {driver.communicate()[0]}"
            time.sleep(0.005)
        driver.kill()
        driver.wait()
        kill_ours(driver.pid, self.ray_folder)
        assert driver.stdout
        driver.stdout.close()


def finished_files(root: Path) -> dict[Path, int]:
    """When manifests, shards of labels and checkpoints were written: what must never be written again."""
    patterns = ("story/labels-*/part-*.parquet", "story/unlearned-*/checkpoints/step-6/model.safetensors")
    files = [*root.rglob("manifest.json"), *(file for pattern in patterns for file in root.glob(pattern))]
    return {file.relative_to(root): file.stat().st_mtime_ns for file in files}


def results(root: Path) -> dict[str, bytes]:
    """All that a run computes: without the files that tell times, and without what a kill may leave half-written."""
    files = [file for file in root.glob("*/*-*/**/*") if file.is_file() and not file.name.startswith(".")]
    results = [file for file in files if file.name != "manifest.json" and file.parent.name != "tensorboard"]
    return {str(file.relative_to(root)): file.read_bytes() for file in results}


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(["labels", "unlearned"], marks=pytest.mark.slow, id="those that take longest"),
        pytest.param(list(KILLED_AT), marks=pytest.mark.long, id="all"),
    ],
)
def test_a_run_killed_in_its_stages_gives_the_bytes_of_one_left_alone(stages, tmp_path, write_run, ray_folder):
    config = write_run(tmp_path, stories=12)
    Command(config, tmp_path / "quiet", ray_folder).finish()

    disturbed = Command(config, tmp_path / "killed", ray_folder)
    before: dict[Path, int] = {}
    for stage in stages:
        disturbed.kill_when(KILLED_AT[stage])
        assert not list(disturbed.root.glob(f"story/{stage}-*/manifest.json")), f"{stage} was done before the kill"
        now = finished_files(disturbed.root)
        assert before.items() <= now.items(), f"what was finished before {stage} was written again"
        before = now
        if stage == "labels":
            shards = len(list(disturbed.root.glob("story/labels-*/part-*.parquet")))
            assert 0 < shards < len(list((tmp_path / "quiet").glob("story/labels-*/part-*.parquet")))
    disturbed.finish()

    assert before.items() <= finished_files(disturbed.root).items()
    expected, found = results(tmp_path / "quiet"), results(disturbed.root)
    assert sorted(found) == sorted(expected)
    assert [name for name, data in expected.items() if found[name] != data] == []
