"""A run as a Ray job, on a cluster of one node that is started here."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BIN = str(Path(sys.executable).parent)
ENTRYPOINT = Path(__file__).parents[1] / "rayjobs" / "unlearn.py"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def submit(tmp_path_factory, kill_ours) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """submit(*arguments): rayjobs/unlearn.py with these arguments as a job, from a folder that holds nothing else."""
    working = tmp_path_factory.mktemp("job")
    (working / "rayjobs").mkdir()
    shutil.copy(ENTRYPOINT, working / "rayjobs")
    ray_folder = tempfile.mkdtemp(prefix="ur-", dir="/tmp")  # the names of Ray's sockets have to be short
    port, dashboard, *others = free_ports(7)
    names = ("ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
             "runtime-env-agent-port", "metrics-export-port")  # fmt: skip
    options = {
        "node-ip-address": "127.0.0.1",
        "port": port,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "temp-dir": ray_folder,
        "num-cpus": "4",
        "object-store-memory": str(200 * 2**20),
        "min-worker-port": "0",
        "max-worker-port": "0",
    } | dict(zip(names, others, strict=True))
    start = [f"{BIN}/ray", "start", "--head", *(f"--{name}={value}" for name, value in options.items())]
    # Not captured: what it starts keeps its output open, and reading it would wait for their end.
    with open(os.path.join(ray_folder, "start.log"), "w+") as log:
        head = subprocess.Popen(start, env=ENVIRONMENT, start_new_session=True, stdout=log, stderr=log)
        try:
            assert head.wait(timeout=120) == 0, Path(log.name).read_text()

            def job(*arguments: str) -> subprocess.CompletedProcess:
                # One of the variables that a run sets for its workers is the job's already: its word stands.
                given = json.dumps({"env_vars": {"TRANSFORMERS_VERBOSITY": "warning"}})
                command = [f"{BIN}/ray", "job", "submit", f"--address=http://127.0.0.1:{dashboard}"]
                command += [f"--working-dir={working}", f"--runtime-env-json={given}", "--"]
                command += [sys.executable, "rayjobs/unlearn.py", *arguments]
                return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)

            yield job
        finally:
            kill_ours(head.pid, ray_folder)
            shutil.rmtree(ray_folder, ignore_errors=True)


def test_a_job_runs_every_step_on_the_cluster_and_writes_the_report(submit, tmp_path, write_run):
    done = submit(str(write_run(tmp_path)), "retain=null", "unlearn.checkpoint_every=100")
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [path.name.rsplit("-", 1)[0] for path in (tmp_path / "runs" / "story").glob("*-*")]
    assert sorted(folders) == sorted(["blocks", "reinforced", "anchors", "labels", "unlearned", "evaluation"])
    assert len(list((tmp_path / "runs").glob("*/*/manifest.json"))) == len(folders) + 1
    assert (tmp_path / "runs" / "story" / "report.html").exists()
    assert "report of story:" in done.stdout


def test_a_job_with_a_broken_configuration_fails_with_its_line(submit, tmp_path, write_run):
    done = submit(str(write_run(tmp_path)), "label.alfa=3")
    assert done.returncode != 0
    assert "label.alfa: unknown key, the nearest known one is alpha" in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()
