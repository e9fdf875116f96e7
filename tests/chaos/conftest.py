"""A run as a program of its own, to kill its parts."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from processes import kill_ours
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

NOTICE_S = 3  # of clouds it is 30 to 120 s

PROGRAM = """
import sys
from unlearn_ray import load_config, pipeline
until, root, config, *overrides = sys.argv[1:]
for outcome in pipeline.run(load_config(config, ["root=" + root, *overrides]), until=until):
    if outcome.error:
        raise outcome.error
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_run) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), stories=32)


@pytest.fixture
def start(config, ray_folder) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start(until, root, *overrides, address=None): a run as far as that step, as a program of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(until: str, root: Path, *overrides: str, address: str | None = None) -> subprocess.Popen[str]:
        environment = os.environ | {"RAY_TMPDIR": ray_folder} | ({"RAY_ADDRESS": address} if address else {})
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, until, str(root), str(config), *overrides],
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


@pytest.fixture
def finish() -> Callable[[subprocess.Popen[str]], None]:
    def wait(program: subprocess.Popen[str]) -> None:
        output, _ = program.communicate(timeout=400)
        assert program.returncode == 0, output

    return wait


@pytest.fixture
def two_nodes(start_cluster) -> tuple[str, Callable[[str], None]]:
    """The address of a cluster of a head that runs no work and two nodes; and pre_empt(name), which takes away the node
    on which a process of that name works, as a cloud does with a spot node: notice first, then SIGKILL for all of it.
    """
    cluster, nodes = start_cluster({"one": {"num_cpus": 4}, "other": {"num_cpus": 4}})

    def pre_empt(name: str) -> None:
        raylets = {node: psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes.values()}
        node = next(node for node, raylet in raylets.items() if processes(raylet, name))
        accepted, why = GcsClient(address=cluster.address).drain_node(
            node.node_id,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "taken away",
            int((time.time() + NOTICE_S) * 1000),
        )
        assert accepted, why
        time.sleep(NOTICE_S)
        cluster.remove_node(node, allow_graceful=False)

    return cluster.address, pre_empt


def processes(root: psutil.Process, name: str) -> list[psutil.Process]:
    """What a process started, directly or not, with this name in its command line."""
    return [process for process in root.children(recursive=True) if name in " ".join(process.cmdline())]


@pytest.fixture
def workers_of() -> Callable[[subprocess.Popen[str], str], list[psutil.Process]]:
    """workers_of(program, name): its processes of that name."""
    return lambda program, name: processes(psutil.Process(program.pid), name)
