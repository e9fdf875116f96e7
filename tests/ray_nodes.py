"""Ray nodes on this machine as `ray start` makes them: separate processes with addresses and folders of their own."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from networks import Namespaces, Network
from processes import kill_all

BIN = str(Path(sys.executable).parent)


class RayNodes:
    """A cluster that asks for a token. Its nodes do not share a folder: two nodes in one session folder take away each
    other's copies of a job's files. environment: more of it, for the nodes and for commands to them."""

    def __init__(self, network: Network, **environment: str):
        self.network = network
        self.base = Path(tempfile.mkdtemp(prefix="ur-", dir="/tmp"))  # the names of Ray's sockets have to be short
        token = self.base / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = own | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            **environment,
        }
        self.nodes: dict[str, int] = {}  # the Unix session of each

    def start(self, name: str, command: list[str], cpus: int | None = None) -> None:
        """Start a node by a `ray start` command, with an address and a folder of its own."""
        folder = self.base / name
        folder.mkdir()
        head = "--head" in command
        place = self.network.place(folder, head)
        if head:
            self.head, self.entry = f"{place.address}:{self.network.port}", place.entry
        options = [f"--node-ip-address={place.address}", f"--object-store-memory={200 * 2**20}", *place.options]
        options += [f"--num-cpus={cpus}"] if cpus else []
        command = [word.replace("HEAD:6379", self.head) for word in command]
        # Not captured: what it starts keeps its output open, and reading it would wait for their end.
        with open(self.base / f"{name}.log", "w+") as log:
            started = subprocess.Popen(
                [*place.entry, *command, *options], env=self.environment, start_new_session=True, stdout=log, stderr=log
            )
            self.nodes[name] = started.pid
            assert started.wait(timeout=120) == 0, Path(log.name).read_text()

    def run(self, command: list[str], folder: Path) -> subprocess.Popen[str]:
        """Start a command in that folder, at the head, where the dashboard is."""
        words = [word.replace("8265", self.network.dashboard) for word in command]
        environment = self.environment
        if command[0] == "ray":
            environment = environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.network.dashboard}"}
        return subprocess.Popen(
            [*self.entry, *words],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def processes(self, name: str) -> set[psutil.Process]:
        """Everything of a node."""
        return self.network.processes(self.base / name, self.nodes[name])

    def kill(self, name: str) -> None:
        """SIGKILL for everything of a node."""
        kill_all(lambda: self.processes(name))
        del self.nodes[name]

    def unseen_logs(self) -> str:
        """What drivers wrote and a command that followed their jobs has not shown: all, when the nodes share a
        loopback, since Ray then looks for it on the head; nothing otherwise."""
        if isinstance(self.network, Namespaces):
            return ""
        return "".join(file.read_text() for file in sorted(self.base.glob("*/session_2*/logs/job-driver-*.log")))

    def close(self) -> None:
        for name in list(self.nodes):
            self.kill(name)
        self.network.close()
        shutil.rmtree(self.base, ignore_errors=True)
