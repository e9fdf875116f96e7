"""Runs as jobs of a cluster of three Ray nodes, each with processes of its own, by the commands of docs/cluster.md."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from pathlib import Path

import psutil
import pytest
import yaml
from networks import Loopback, Namespaces, Network, own_network
from ray_nodes import RayNodes
from s3_server import serve_s3
from slow_disk import slow_disk, slow_disk_possible

from unlearn_ray.engine import storage

pytestmark = pytest.mark.timeout(1200)

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "cluster.md").read_text()
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]
RAY_JOB = """ray job submit --entrypoint-num-cpus 1 --entrypoint-label-selector '{"ray.io/market-type": "!spot"}'"""
SPOT = "ray start --address HEAD:6379 --labels ray.io/market-type=spot"
# Everything goes to the spot node while there is one, so that its loss is felt in every stage.
SPOT_FIRST = [{"ray.io/market-type": "spot"}, {}]
RESOURCES = {
    "gpus_per_worker": 0,
    "batch_blocks": 1,
    "save_every": 4,
    "placement": {"cpu": SPOT_FIRST, "score": SPOT_FIRST, "train": SPOT_FIRST},
}
# What is there when something is taken away, below the folder of the forget set: some shards of several, a state to go
# on from, some readings.
DRIVER_KILLED_AT = "reinforced-*/saves/step-4/*.pt"
NODE_KILLED_AT = ("labels-*/part-*.parquet", "unlearned-*/saves/step-4/*.pt", "evaluation-*/readings/*/*.npz")


def documented(start: str) -> list[str]:
    """The command of docs/cluster.md that starts so."""
    [command] = [command for command in COMMANDS if command.startswith(start)]
    return shlex.split(command)


@contextmanager
def three_nodes(network: Network, **environment: str) -> Iterator[RayNodes]:
    """The head, which runs no work, a node on demand and a spot node."""
    nodes = RayNodes(network, **environment)
    try:
        nodes.start("head", documented("ray start --head"))
        nodes.start("steady", documented("ray start --address HEAD:6379 --labels unlearn-ray/work=cpu"), cpus=4)
        nodes.start("spot", documented(SPOT), cpus=4)
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with three_nodes(own_network()) as nodes:
        yield nodes


@pytest.fixture
def one_node() -> Iterator[RayNodes]:
    """A head that runs work too: the laptop's cluster."""
    nodes = RayNodes(Loopback())
    try:
        nodes.start("head", ["ray", "start", "--head", "--dashboard-host=127.0.0.1"], cpus=4)
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def tiny_run(tmp_path, write_run) -> dict:
    """A whole run on a tiny random model, in many shards and steps."""
    run = yaml.safe_load(write_run(tmp_path, stories=12).read_text())
    run |= {"retain": None, "resources": RESOURCES}
    run["label"] |= {"block_tokens": 16}
    for training in ("reinforce", "unlearn"):
        run[training] |= {"global_batch": 16}
    run["unlearn"] |= {"checkpoint_every": 100}
    return run


@pytest.fixture
def demo_run(tmp_path) -> dict:
    """The demo on the first three chapters of its book, with fewer questions, and with adapters: a save has 60 MB then,
    not the 1.6 GB of all weights and what Adam knows of them."""
    run = yaml.safe_load((PROJECT / "configs" / "demo.yaml").read_text().replace("data/demo/", f"{PROJECT}/data/demo/"))
    chapters, _, _ = Path(run["forget_sets"][0]["documents"]).read_text().partition("CHAPTER IV")
    (tmp_path / "alice.txt").write_text(chapters)
    run["forget_sets"] = [{"name": "alice", "documents": f"{tmp_path}/alice.txt"}]
    run["evaluate"] |= {"completions": 16, "probability_prompts": 16, "verbatim": 4, "perplexity_blocks": 8}
    for file in ("probes", "controls"):
        run["evaluate"][file] = f"{PROJECT}/{run['evaluate'][file]}"
    adapter = {"adapter": {"rank": 16, "alpha": 32}, "global_batch": 8, "learning_rate": 1e-3}
    run["reinforce"] |= {**adapter, "epochs": 1}
    run["unlearn"] |= {**adapter, "merge_adapter": False, "retain_batch": 4, "retain_blocks": 24}
    run["resources"] |= RESOURCES | {"batch_blocks": 8, "micro_batch": 8}
    del run["audit"]
    return run


@pytest.fixture
def in_folder(tmp_path, tiny_run):
    """in_folder(nodes, root, run=the tiny one, **changes): a folder with my.yaml and rayjobs/; returns start(command),
    which starts a command there, at the head of these nodes."""
    shutil.copytree(PROJECT / "rayjobs", tmp_path / "rayjobs")

    def make(
        nodes: RayNodes, root: str, run: dict = tiny_run, **changes
    ) -> Callable[[list[str]], subprocess.Popen[str]]:
        (tmp_path / "my.yaml").write_text(yaml.safe_dump(run | {"root": root} | changes))
        return lambda command: nodes.run(command, tmp_path)

    return make


def ended(program: subprocess.Popen[str]) -> str:
    output, _ = program.communicate(timeout=1800)
    return output


def files(root: str, pattern: str) -> list[str]:
    found = [path[len(root) :].lstrip("/") for path in storage.list_files(root)]
    return [path for path in found if fnmatch(path, f"*/{pattern}")]


def wait_for(root: str, pattern: str, program: subprocess.Popen[str]) -> None:
    while not files(root, pattern):
        assert program.poll() is None, f"ended before {pattern}: {ended(program)}"
        time.sleep(0.05)


def results(root: str) -> dict[str, bytes]:
    """All that a run computes: without the files that tell times, without what a kill may leave half-written, and
    without the root, by which an adapter names its base."""
    found = {path[len(root) :].lstrip("/"): path for path in storage.list_files(root)}
    skipped = re.compile(r"(^|/)(\..*|manifest\.json|report\.[a-z]+)$|^events|/tensorboard/")
    return {
        name: storage.read_bytes(path).replace(root.encode(), b"ROOT")
        for name, path in found.items()
        if not skipped.search(name)
    }


def manifests(root: str) -> dict[str, dict]:
    return {
        path.split("/")[-2].rsplit("-", 1)[0]: storage.read_json(path)
        for path in storage.list_files(root)
        if path.endswith("/manifest.json")
    }


def kill_driver(nodes: RayNodes) -> str:
    """SIGKILL for the program that drives the run; returns the name of the node that it ran on."""
    [(node, driver)] = [
        (name, process)
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[1:4] == ["-m", "unlearn_ray", "run"]
        for name in nodes.nodes
        if process in nodes.processes(name)
    ]
    driver.kill()
    return node


@pytest.mark.slow
def test_a_submitted_job_is_followed_and_ends_the_command_with_its_exit_code(in_folder, one_node, tmp_path):
    start = in_folder(one_node, f"{tmp_path}/runs", baseline="/no/such/model")
    output = ended(program := start(documented("unlearn-ray submit my.yaml")))
    assert program.returncode == 2, output
    assert "error: /no/such/model: no such model; expected a folder, a .gguf file or a hub id" in output


@pytest.mark.slow
def test_the_doctor_says_what_is_wrong_and_what_is_not(in_folder, nodes, tmp_path):
    start = in_folder(nodes, f"{tmp_path}/runs", resources=RESOURCES | {"workers": 50})
    program = start([*documented("unlearn-ray doctor my.yaml"), "--wait", "2"])
    output = ended(program) + nodes.unseen_logs()
    lines = dict(re.findall(r"^(\w+) +(ok|FAILED) ", output, re.MULTILINE))
    assert program.returncode == 1, output
    assert lines == dict.fromkeys(("root", "nodes", "versions", "storage", "model", "documents"), "ok") | dict.fromkeys(
        ("training", "scoring"), "FAILED"
    )
    assert "no room within 2 s for 50 with 1 CPU each" in output and "3 of 3 nodes read and write it" in output
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.slow
def test_a_job_of_ray_runs_every_step(in_folder, nodes, tmp_path):
    root = f"{tmp_path}/runs"
    program = in_folder(nodes, root)(documented(f"{RAY_JOB} --working-dir . -- python rayjobs/unlearn.py"))
    output = ended(program) + nodes.unseen_logs()
    assert program.returncode == 0, output
    expected = ["blocks", "reinforced", "anchors", "labels", "unlearned", "evaluation"]
    assert sorted(manifests(root)) == sorted([*expected, "baseline"])
    assert files(root, "report.html") and "report of story:" in output
    told = storage.read_json(storage.join(root, "story", "report.json"))
    assert told["forget_set"] == "story"


@pytest.mark.slow
def test_a_job_with_a_broken_configuration_fails_with_its_line(in_folder, nodes, tmp_path):
    start = in_folder(nodes, f"{tmp_path}/runs")
    command = documented(f"{RAY_JOB} --working-dir . -- python rayjobs/anchors.py")
    output = ended(program := start([*command, "label.alfa=3"])) + nodes.unseen_logs()
    assert program.returncode != 0
    assert "label.alfa: unknown key, the nearest known one is alpha" in output
    assert not (tmp_path / "runs").exists()


@pytest.fixture(params=["a tiny model, on a slow disk", "the demo, on a slow S3"])
def lossy(request, tmp_path, monkeypatch) -> Iterator[tuple[RayNodes, str, dict]]:
    """Nodes, a place that all of them write to, and a run."""
    if request.param == "a tiny model, on a slow disk":
        disk = slow_disk(tmp_path, seconds=0.02) if slow_disk_possible() else nullcontext(tmp_path)
        with disk as place, three_nodes(own_network()) as nodes:
            yield nodes, str(place), request.getfixturevalue("tiny_run")
        return
    network = own_network()
    wire = network if isinstance(network, Namespaces) else None
    with serve_s3("kept", wire=wire) as s3, s3.fault("slow", seconds=0.1):
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        with three_nodes(network, **s3.environment | {"AWS_ENDPOINT_URL": s3.url_at_wire}) as nodes:
            yield nodes, "s3://kept", request.getfixturevalue("demo_run")


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_a_run_that_loses_its_driver_and_a_node_in_every_stage_gives_the_same_bytes(in_folder, lossy):
    nodes, place, run = lossy
    quiet, root = f"{place}/quiet", f"{place}/disturbed"
    submit = documented("unlearn-ray submit my.yaml")
    start = in_folder(nodes, root, run)
    job = documented(f"{RAY_JOB} --working-dir . -- python rayjobs/unlearn.py")
    output = ended(undisturbed := start([*job, f"root={quiet}"]))
    assert undisturbed.returncode == 0, output + nodes.unseen_logs()

    first = start(submit)
    wait_for(root, DRIVER_KILLED_AT, first)
    assert kill_driver(nodes) == "steady"
    assert (output := ended(first)) and first.returncode == 128 + signal.SIGKILL, output

    second = start(submit)
    for pattern in NODE_KILLED_AT:
        wait_for(root, pattern, second)
        stage = pattern.split("-")[0]
        assert stage not in manifests(root), f"{stage} was done before the kill"
        [spot] = [name for name in nodes.nodes if name.startswith("spot")]
        nodes.kill(spot)
        nodes.start(f"spot-after-{stage}", documented(SPOT), cpus=4)
    output = ended(second)
    assert second.returncode == 0, output + nodes.unseen_logs()
    jobs = re.findall(r"^job (unlearn-my-\w+)-(\d+) at", output, re.MULTILINE)
    assert [attempt for _, attempt in jobs] == ["2"]

    expected, found = results(quiet), results(root)
    assert sorted(found) == sorted(expected)
    assert [name for name, data in expected.items() if found[name] != data] == []
    times = {name: (one["seconds"], manifests(root)[name]["seconds"]) for name, one in manifests(quiet).items()}
    print("seconds of each step, undisturbed and disturbed:", json.dumps(times))
