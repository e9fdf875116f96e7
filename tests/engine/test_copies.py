"""Copies that the processes of a node share."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from unlearn_ray.engine.copies import shared_copy
from unlearn_ray.errors import StepFailed

KEY, OTHER = "a1b2", "c3d4"
WEIGHTS = b"w" * 1000
# A process that takes the time that the name of what it waits for says, before it has filled the copy and when it has.
READER = f"""
import sys, time
from pathlib import Path
from unlearn_ray.engine.copies import shared_copy

place, number, *events = sys.argv[1:]

def wait(event):
    while not Path(place, event).exists():
        time.sleep(0.01)

def fill(folder):
    with Path(place, "fillings").open("a") as fillings:
        fillings.write(".")
    (folder / "weights").write_bytes(b"w")
    wait(events[0])
    (folder / "weights").write_bytes({WEIGHTS})

with shared_copy({KEY!r}, fill) as folder:
    Path(place, "entered-" + number).touch()
    wait(events[1])
    assert (folder / "weights").read_bytes() == {WEIGHTS}
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def reader(place: Path, number: int, filled: str, read: str) -> subprocess.Popen:
    environment = os.environ | {"TMPDIR": str(place)}
    return subprocess.Popen([sys.executable, "-c", READER, str(place), str(number), filled, read], env=environment)


def wait_for(place: Path, name: str) -> None:
    while not (place / name).exists():
        time.sleep(0.01)


def fill(folder: Path) -> None:
    (folder / "weights").write_bytes(WEIGHTS)


def copies(place: Path) -> list[str]:
    return sorted(path.name for folder in place.glob("unlearn-ray-*") for path in folder.iterdir())


def test_processes_that_want_the_same_share_a_copy_until_the_last_has_left(place):
    readers = [reader(place, number, "filled", "read") for number in range(4)]
    wait_for(place, "fillings")
    (place / "filled").touch()
    for number in range(4):
        wait_for(place, f"entered-{number}")
    assert (place / "fillings").read_text() == "."
    readers[0].kill()
    readers[0].wait()
    with shared_copy(OTHER, fill):
        assert copies(place) == [KEY, f"{KEY}.lock", OTHER, f"{OTHER}.lock"]
    (place / "read").touch()
    assert [one.wait() for one in readers] == [-signal.SIGKILL, 0, 0, 0]
    with shared_copy(OTHER, fill):  # the last two may have left at the same moment
        assert copies(place) == [OTHER, f"{OTHER}.lock"]
    assert copies(place) == []


def test_what_a_killed_process_began_is_not_taken_for_a_copy(place):
    killed = reader(place, 0, "never", "never")
    wait_for(place, "fillings")
    killed.kill()
    killed.wait()
    with shared_copy(KEY, fill) as folder:
        assert (folder / "weights").read_bytes() == WEIGHTS
    assert copies(place) == []


def test_a_copy_that_cannot_be_made_is_in_nobodys_way(place):
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"), shared_copy(KEY, fail):
        pass
    assert copies(place) == []
    with shared_copy(KEY, fill) as folder, shared_copy(KEY, fail) as again:
        assert folder == again
    assert copies(place) == []


def test_the_place_of_another_user_is_refused(place, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4711)  # the folder that is made belongs to who made it
    with pytest.raises(StepFailed, match="belongs to another user"), shared_copy(KEY, fill):
        pass
