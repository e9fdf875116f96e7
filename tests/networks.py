"""Where the Ray nodes of one machine live: on its loopback, or each in namespaces of its own, as on machines apart."""

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import psutil
from processes import started_in

Made = TypeVar("Made")
CLONE_NEWNET = 0x40000000
AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


@dataclass
class Place:
    """A node's address; what a command starts with that is to run there; options of `ray start` there."""

    address: str
    entry: list[str]
    options: list[str]


class Network(Protocol):
    port: str  # of the cluster
    dashboard: str  # the dashboard's port

    def place(self, folder: Path, head: bool) -> Place:
        """For a new node, which has the name of the folder that it keeps its files in."""
        ...

    def processes(self, folder: Path, session: int) -> set[psutil.Process]:
        """Those of the node with that folder, which a command of that Unix session has started."""
        ...

    def close(self) -> None: ...


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Loopback:
    """127.0.0.2, 127.0.0.3 and so on. Every node needs ports of its own."""

    def __init__(self) -> None:
        self.count = 0
        self.port, self.dashboard, self.client = free_ports(3)

    def place(self, folder: Path, head: bool) -> Place:
        self.count += 1
        ports = dict(zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True))
        if head:
            ports |= {"port": self.port, "dashboard-port": self.dashboard, "ray-client-server-port": self.client}
        options = [f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0"]
        options += [f"--{name}={port}" for name, port in ports.items()]
        return Place(f"127.0.0.{1 + self.count}", [], options)

    def processes(self, folder: Path, session: int) -> set[psutil.Process]:
        return started_in(session, str(folder))

    def close(self) -> None:
        pass


class Namespaces:
    """A machine a node, as far as namespaces make one: with a network, processes, mounts and a name of its own, and
    the node's folder at /tmp/ray. Ray takes the nodes of which it sees processes for nodes of its own host. Between
    them is a wire that leads nowhere else. Needs the right to make them, util-linux and iproute2.
    """

    port, dashboard = "6379", "8265"
    HOST = "10.0.0.1"  # what listens for all of them
    APART = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    KEEPER = """
        hostname "$1"
        mount --bind "$2/hosts" /etc/hosts
        mount --bind "$2" /tmp/ray
        ip link set lo up
        echo ready
        sleep infinity & wait"""

    def __init__(self) -> None:
        self.keepers: dict[str, subprocess.Popen[str]] = {}
        self.wire = _keep("unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity")
        _ip(self.wire.pid, "link add bridge type bridge")
        _ip(self.wire.pid, "link set bridge up")
        _ip(self.wire.pid, f"address add {self.HOST}/24 dev bridge")

    @staticmethod
    def possible() -> bool:
        if os.geteuid() or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
            return False
        trial = ["unshare", *Namespaces.APART, "ip", "link", "add", "bridge", "type", "bridge"]
        return subprocess.run(trial, capture_output=True).returncode == 0

    def place(self, folder: Path, head: bool) -> Place:
        number = len(self.keepers) + 1
        name, address, plug = folder.name, f"10.0.0.{1 + number}", f"plug{number}"
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
        Path("/tmp/ray").mkdir(exist_ok=True)
        self.keepers[name] = _keep("unshare", *self.APART, "sh", "-c", self.KEEPER, "sh", name, str(folder))
        [first] = psutil.Process(self.keepers[name].pid).children()
        _ip(self.wire.pid, f"link add {plug} type veth peer name eth0 netns {first.pid}")
        _ip(self.wire.pid, f"link set {plug} master bridge up")
        _ip(first.pid, f"address add {address}/24 dev eth0")
        _ip(first.pid, "link set eth0 up")
        # A process of Ray takes the address from which it could reach the world for its own.
        _ip(first.pid, f"route add default via {self.HOST}")
        enter = ["nsenter", f"--target={first.pid}", "--net", "--mount", "--uts", "--pid", "--wd=.", "--"]
        return Place(address, enter, [])

    def processes(self, folder: Path, session: int) -> set[psutil.Process]:
        return set(psutil.Process(self.keepers[folder.name].pid).children(recursive=True))

    def at_wire(self, work: Callable[[], Made]) -> Made:
        """work(), in a thread that is at the wire: sockets that it makes stay there."""

        def there() -> Made:
            with open(f"/proc/{self.wire.pid}/ns/net") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(there).result()

    def close(self) -> None:
        for keeper in (self.wire, *self.keepers.values()):
            keeper.kill()
            keeper.communicate()


def _ip(process: int, command: str) -> None:
    """ip, where that process is."""
    words = ["nsenter", f"--target={process}", "--net", "ip", *command.split()]
    subprocess.run(words, check=True, capture_output=True)


def _keep(*command: str) -> subprocess.Popen[str]:
    """A program that keeps namespaces, once it has them."""
    keeper = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert keeper.stdout
    if keeper.stdout.readline() != "ready\n":
        raise OSError(f"{command}: {keeper.communicate()[1]}")
    return keeper


def own_network() -> Network:
    """Namespaces where they can be made."""
    return Namespaces() if Namespaces.possible() else Loopback()
