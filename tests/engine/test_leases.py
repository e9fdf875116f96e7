import io
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from unlearn_ray.engine import leases, storage
from unlearn_ray.engine.leases import driving, leased, living_drivers


@pytest.fixture(params=["local", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(storage, "SETTLE_S", 0.5)
    monkeypatch.setattr(leases, "LINGER_S", 0)
    if request.param == "local":
        return str(tmp_path)
    open_shared = MemoryFileSystem._open

    def open_own(self, path: str, mode: str = "rb", **options):
        """By itself it gives all readers one file, with one position."""
        file = open_shared(self, path, mode, **options)
        return io.BytesIO(file.getvalue()) if mode == "rb" else file

    monkeypatch.setattr(MemoryFileSystem, "_open", open_own)
    return f"fsspec+memory://{uuid.uuid4().hex}/runs"


def leave_driver(root: str, name: str = "dead", **changes) -> None:
    """What a driver that was killed leaves: a sign of life and a lease."""
    sign = {"host": socket.gethostname(), "pid": os.getpid(), "renewals": 3} | changes
    storage.write_json(storage.join(root, ".drivers", f"{name}.json"), sign)
    storage.write_json(storage.join(root, ".leases", "labels-0123456789.0"), {"driver": name})


def test_one_driver_has_the_step_until_it_releases_it(root):
    with driving(root) as one, driving(root) as other:
        lease = one.take("labels-0123456789")
        assert lease and other.take("labels-0123456789") is None
        assert leased(root) == {"labels-0123456789"} and len(living_drivers(root)) == 2
        one.release(lease)
        assert other.take("labels-0123456789")
    assert living_drivers(root) == [] and leased(root) == set()


def test_of_many_drivers_at_once_one_gets_the_step(root):
    leave_driver(root)  # also where it has to be taken over
    got, together = [], threading.Barrier(8)

    def take() -> None:
        with driving(root) as driver:
            together.wait()
            got.append(driver.take("labels-0123456789"))
            together.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [lease for lease in got if lease] == [storage.join(root, ".leases", "labels-0123456789.1")]


def test_the_step_of_an_earlier_process_with_our_pid_is_taken_over(root):
    leave_driver(root)
    assert leased(root) == set()
    with driving(root) as driver:
        assert driver.take("labels-0123456789")


def test_what_a_dead_driver_had_is_taken_over_when_its_workers_are_gone(root, monkeypatch):
    monkeypatch.setattr(leases, "LINGER_S", 0.5)
    leave_driver(root)
    with driving(root) as driver:
        assert driver.take("labels-0123456789") is None
        time.sleep(0.6)
        assert driver.take("labels-0123456789")


def test_the_step_of_a_driver_without_a_sign_of_life_is_taken_over(root):
    leave_driver(root)
    storage.remove(storage.join(root, ".drivers", "dead.json"))
    with driving(root) as driver:
        assert driver.take("labels-0123456789")


def test_the_step_of_another_host_is_taken_over_when_its_driver_is_silent(root, monkeypatch):
    monkeypatch.setattr(leases, "LAPSE_S", 0.5)
    leave_driver(root, host="elsewhere")
    assert leased(root) == {"labels-0123456789"}
    with driving(root) as driver:
        assert driver.take("labels-0123456789") is None
        time.sleep(0.3)
        leave_driver(root, host="elsewhere", renewals=4)
        assert driver.take("labels-0123456789") is None
        time.sleep(0.3)
        assert driver.take("labels-0123456789") is None, "it was renewed 0.3 s ago"
        time.sleep(0.4)
        lease = driver.take("labels-0123456789")
        assert lease and driver.holds(lease)
        storage.write_json(lease.replace(".1", ".2"), {"driver": "third"})
        assert not driver.holds(lease)


def test_a_driver_renews_its_sign_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    with driving(str(tmp_path)) as driver:
        for _ in range(200):
            time.sleep(0.05)
            if json.loads((tmp_path / ".drivers" / f"{driver.name}.json").read_text())["renewals"] >= 2:
                return
    pytest.fail("never renewed")


def test_an_error_ends_the_driver(tmp_path):
    with pytest.raises(ValueError), driving(str(tmp_path)):
        raise ValueError
    assert living_drivers(str(tmp_path)) == []
