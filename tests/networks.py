"""Where Ray nodes of one machine have their addresses: on loopback, or in network namespaces of their own."""

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

Made = TypeVar("Made")
CLONE_NEWNET = 0x40000000
AGENT_PORTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


class Network(Protocol):
    port: str  # of the cluster
    dashboard: str  # the dashboard's port

    def address(self, node: str) -> str:
        """A new node's address."""
        ...

    def options(self, head: bool) -> list[str]:
        """Of `ray start`, for a node that shares what it shares."""
        ...

    def entry(self, node: str) -> list[str]:
        """What a command starts with that is to run at that node."""
        ...

    def cut_off(self, node: str) -> bool:
        """Lets nothing reach the node nor leave it, though it lives on; False where that cannot be done."""
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

    def address(self, node: str) -> str:
        self.count += 1
        return f"127.0.0.{1 + self.count}"

    def options(self, head: bool) -> list[str]:
        ports = dict(zip(AGENT_PORTS, free_ports(len(AGENT_PORTS)), strict=True))
        if head:
            ports |= {"port": self.port, "dashboard-port": self.dashboard, "ray-client-server-port": self.client}
        return ["--min-worker-port=0", "--max-worker-port=0", *(f"--{name}={port}" for name, port in ports.items())]

    def entry(self, node: str) -> list[str]:
        return []

    def cut_off(self, node: str) -> bool:
        return False

    def close(self) -> None:
        pass


class Namespaces:
    """A namespace a node, with a loopback of its own, and a wire between them that leads nowhere else. Needs the right
    to make them, and iproute2."""

    port, dashboard = "6379", "8265"
    HOST = "10.0.0.1"  # what listens for all of them

    def __init__(self) -> None:
        self.prefix = f"ur{secrets.token_hex(3)}"
        self.count = 0
        self.wire = self._namespace("wire")
        _ip("-n", self.wire, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.wire, "link", "set", "bridge", "up")
        _ip("-n", self.wire, "address", "add", f"{self.HOST}/24", "dev", "bridge")

    @staticmethod
    def possible() -> bool:
        if os.geteuid() or not shutil.which("ip"):
            return False
        try:
            Namespaces().close()
        except subprocess.CalledProcessError:
            return False
        return True

    def _namespace(self, name: str) -> str:
        name = f"{self.prefix}-{name}"
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
        return name

    def address(self, node: str) -> str:
        self.count += 1
        namespace, plug = self._namespace(node), f"plug{self.count}"
        _ip("-n", self.wire, "link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self.wire, "link", "set", plug, "master", "bridge", "up")
        _ip("-n", namespace, "address", "add", f"10.0.0.{1 + self.count}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        # A process of Ray takes the address from which it could reach the world for its own.
        _ip("-n", namespace, "route", "add", "default", "via", self.HOST)
        return f"10.0.0.{1 + self.count}"

    def options(self, head: bool) -> list[str]:
        return []

    def entry(self, node: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.prefix}-{node}"]

    def cut_off(self, node: str) -> bool:
        _ip("-n", f"{self.prefix}-{node}", "link", "set", "eth0", "down")
        return True

    def at_wire(self, work: Callable[[], Made]) -> Made:
        """work(), in a thread that is at the wire: sockets that it makes stay there."""

        def there() -> Made:
            with open(f"/run/netns/{self.wire}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(there).result()

    def close(self) -> None:
        names = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout.split()
        for name in names:
            if name.startswith(f"{self.prefix}-"):
                _ip("netns", "delete", name)


def own_network() -> Network:
    """Namespaces where they can be made."""
    return Namespaces() if Namespaces.possible() else Loopback()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
