import json
import os
import socket
import threading

import pytest

from unlearn_ray.engine import lock
from unlearn_ray.engine.lock import is_driven, only_driver
from unlearn_ray.errors import InputError


def leave_lock(root, **changes) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "process": "another", "renewals": 3}
    (root / ".lock").write_text(json.dumps(owner | changes))


def test_the_lock_is_held_for_a_while_and_refused_to_others(tmp_path):
    root = str(tmp_path)
    with only_driver(root):
        assert is_driven(root)
        with pytest.raises(InputError, match="in use"), only_driver(root):
            pass
    assert not is_driven(root)
    with only_driver(root):
        pass


def test_the_lock_goes_with_an_error(tmp_path):
    with pytest.raises(ValueError), only_driver(str(tmp_path)):
        raise ValueError
    assert not (tmp_path / ".lock").exists()


def test_the_lock_of_an_earlier_process_with_our_pid_is_taken_over(tmp_path):
    leave_lock(tmp_path)
    with only_driver(str(tmp_path)):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == lock.PROCESS


def test_a_lock_that_was_never_finished_is_taken_over(tmp_path):
    (tmp_path / ".lock").write_text('{"ho')
    with only_driver(str(tmp_path)):
        pass


def test_the_lock_of_another_host_is_taken_over_when_it_is_not_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LAPSE_S", 0.2)
    leave_lock(tmp_path, host="elsewhere")
    assert is_driven(str(tmp_path))
    with only_driver(str(tmp_path)):
        pass


def test_the_lock_of_another_host_is_refused_while_it_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LAPSE_S", 1.0)
    leave_lock(tmp_path, host="elsewhere")
    renewal = threading.Timer(0.3, leave_lock, [tmp_path], {"host": "elsewhere", "renewals": 4})
    renewal.start()
    with pytest.raises(InputError, match="on elsewhere"), only_driver(str(tmp_path)):
        pass
    renewal.join()


def test_a_driver_renews_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    with only_driver(str(tmp_path)):
        for _ in range(200):
            threading.Event().wait(0.05)
            if json.loads((tmp_path / ".lock").read_text())["renewals"] >= 2:
                return
    pytest.fail("never renewed")
