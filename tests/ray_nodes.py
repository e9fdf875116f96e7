"""Ray nodes on this machine as `ray start` makes them: separate processes with addresses and folders of their own."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

BIN = str(Path(sys.executable).parent)
AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class RayNodes:
    """A cluster that asks for a token. Its nodes do not share a folder: two nodes in one session folder take away each
    other's copies of a job's files. environment: more of it, for the nodes and for commands to them."""

    def __init__(self, kill_ours: Callable[[int, str], None], **environment: str):
        self.kill_ours = kill_ours
        self.base = Path(tempfile.mkdtemp(prefix="ur-", dir="/tmp"))  # the names of Ray's sockets have to be short
        token = self.base / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.port, self.dashboard, client = free_ports(3)
        self.head_options = [
            "--port",
            self.port,
            "--dashboard-port",
            self.dashboard,
            "--ray-client-server-port",
            client,
        ]
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = own | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            **environment,
        }
        self.nodes: dict[str, tuple[int, str]] = {}

    def start(self, name: str, command: list[str], cpus: int | None = None) -> None:
        """Start a node by a `ray start` command, with an address, a folder and ports of its own."""
        folder = self.base / name
        folder.mkdir()
        address = f"127.0.0.{2 + len(list(self.base.iterdir()))}"
        options = [f"--node-ip-address={address}", f"--temp-dir={folder}", f"--object-store-memory={200 * 2**20}"]
        options += ["--min-worker-port=0", "--max-worker-port=0"] + ([f"--num-cpus={cpus}"] if cpus else [])
        options += [f"--{key}={port}" for key, port in zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True)]
        if "--head" in command:
            self.head, options = f"{address}:{self.port}", options + self.head_options
        command = [word.replace("HEAD:6379", getattr(self, "head", "")) for word in command]
        # Not captured: what it starts keeps its output open, and reading it would wait for their end.
        with open(self.base / f"{name}.log", "w+") as log:
            started = subprocess.Popen(
                [*command, *options], env=self.environment, start_new_session=True, stdout=log, stderr=log
            )
            self.nodes[name] = (started.pid, str(folder))
            assert started.wait(timeout=120) == 0, Path(log.name).read_text()

    def kill(self, name: str) -> None:
        """SIGKILL for everything of a node."""
        self.kill_ours(*self.nodes.pop(name))

    def driver_logs(self) -> str:
        """What the drivers of all jobs wrote. Ray looks for it on the head, where it is not, when the nodes of one host
        have folders of their own; so a command that follows a job off the head sees none of it here."""
        return "".join(file.read_text() for file in sorted(self.base.glob("*/session_2*/logs/job-driver-*.log")))

    def close(self) -> None:
        for name in list(self.nodes):
            self.kill(name)
        shutil.rmtree(self.base, ignore_errors=True)
