"""Many forget sets on a cluster, two drivers at work on one root, and a node and one of the drivers killed: every good
set is done, each step once, with the results of a run in which nothing happens and one thing is done after another, and
of which one set is run alone as well; every bad one is told.

So many sets as UNLEARN_RAY_CHAOS_SETS says, three of them bad.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from unlearn_ray.engine.events import read_events

SETS = int(os.environ.get("UNLEARN_RAY_CHAOS_SETS", "5"))
BAD = {"absent": None, "latin": "caf\xe9 ".encode("latin-1") * 50, "empty": b" \n"}

pytestmark = [pytest.mark.long, pytest.mark.timeout(600 + 120 * SETS)]


@pytest.fixture
def config(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    """A run of SETS sets: stories that differ in a name, and the bad ones in between."""
    run = write_run(tmp_path)
    lines = []
    for number in range(SETS - len(BAD)):
        name = "Zorblax" + "aeiou"[number % 5] * (number // 5 + 1)
        story = (tmp_path / "story.txt").read_text().replace("Zorblax", name)
        (tmp_path / f"good-{number}.txt").write_text(story)
        lines.append({"name": f"good-{number}", "documents": f"{tmp_path}/good-{number}.txt"})
    for place, (name, data) in enumerate(BAD.items()):
        if data is not None:
            (tmp_path / f"{name}.txt").write_bytes(data)
        lines.insert(place, {"name": name, "documents": f"{tmp_path}/{name}.txt"})
    (tmp_path / "sets.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.fixture
def drive(config: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """drive(address, root, *arguments): `unlearn-ray run` as a program of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(address: str, root: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "unlearn_ray", "run", str(config), f"root={root}", "retain=null", *arguments]
        environment = os.environ | {"RAY_ADDRESS": address}
        with open(f"{root}-{len(started)}.log", "w") as log:
            started.append(
                subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log, text=True)
            )
        return started[-1]

    yield run
    for program in started:
        program.kill()
        program.wait()


def results(folder: Path) -> dict[str, bytes]:
    """All that the steps of a set computed, without what tells times."""
    files = [file for file in folder.glob("*-*/**/*") if file.is_file() and not file.name.startswith(".")]
    kept = [file for file in files if file.name != "manifest.json" and file.parent.name != "tensorboard"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in kept}


def wait_for(root: Path, pattern: str, *programs: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not list(root.glob(pattern)):
        assert time.monotonic() < deadline, pattern
        assert all(program.poll() is None for program in programs), [
            Path(f"{root}-{n}.log").read_text() for n in (0, 1)
        ]
        time.sleep(0.01)


def test_every_good_set_is_done_once_while_a_node_and_a_driver_are_killed(config, drive, tmp_path):
    root, sets = tmp_path / "many", f"forget_sets={tmp_path}/sets.jsonl"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=8) for _ in range(2)]
        drivers = [drive(cluster.address, root, sets, "resources.parallel_sets=2", f"--job={n}/2") for n in (1, 2)]
        wait_for(root, "good-*/reinforced-*/attempt.json", *drivers)
        drivers[0].kill()
        drivers[0].wait()
        wait_for(root, "good-*/labels-*/attempt.json", drivers[1])
        raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
        busy = [len(raylet.children(recursive=True)) for raylet in raylets]
        cluster.remove_node(nodes[busy.index(max(busy))], allow_graceful=False)
        cluster.add_node(num_cpus=8)
        assert drivers[1].wait(timeout=400 + 100 * SETS) == 1, "bad sets are failures"
        told = Path(f"{root}-1.log").read_text()

        steps = [row for row in read_events(str(root)) if row.get("digest")]
        ended = Counter((row["forget_set"], row["stage"]) for row in steps if row["event"] == "ran")
        assert set(ended.values()) == {1}, "a step was done twice"
        assert {name for name, stage in ended if stage == "evaluation"} == {f"good-{n}" for n in range(SETS - len(BAD))}
        failed = Counter(row["forget_set"] for row in steps if row["event"] == "failed")
        assert failed.keys() == BAD.keys() and max(failed.values()) <= 2, "a driver that starts later tries them too"
        for name in BAD:
            assert f"error: {name} blocks-" in told

        good = [{"name": f"good-{n}", "documents": f"{tmp_path}/good-{n}.txt"} for n in range(SETS - len(BAD))]
        quiet, alone = tmp_path / "quiet", tmp_path / "alone"
        one_by_one = drive(cluster.address, quiet, f"forget_sets={json.dumps(good)}", "resources.parallel_sets=1")
        assert one_by_one.wait(timeout=300 + 30 * SETS) == 0
        assert drive(cluster.address, alone, f"forget_sets={json.dumps(good[-1:])}").wait(timeout=300) == 0
        pairs = [(quiet / one["name"], root / one["name"]) for one in good]
        for undisturbed, disturbed in [*pairs, (alone / good[-1]["name"], quiet / good[-1]["name"])]:
            expected, found = results(undisturbed), results(disturbed)
            assert sorted(found) == sorted(expected)
            assert [name for name, data in expected.items() if found[name] != data] == []
    finally:
        cluster.shutdown()
