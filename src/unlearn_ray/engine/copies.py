"""Copies of what lies in an object store: one a node, for all its processes that want the same at the same time.

A model of 14 GB that eight workers of a node load is fetched once, and where its weights are mapped they share memory.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unlearn_ray.errors import StepFailed


@contextmanager
def shared_copy(key: str, fill: Callable[[Path], None]) -> Iterator[Path]:
    """A folder that `fill` has filled for this key, to read; the last process that leaves it removes it.

    What killed processes left behind is removed by the next one that asks for anything.
    """
    place = Path(tempfile.gettempdir()) / f"unlearn-ray-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.lstat().st_uid != os.getuid():
        raise StepFailed(f"{place} belongs to another user, who could change what is read from it; set TMPDIR")
    for left in {path.stem for path in place.iterdir()} - {key}:
        with suppress(BlockingIOError), _locked(place, left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _remove(place, left)
    folder = place / key
    while True:
        with _locked(place, key, fcntl.LOCK_SH) as lock:
            if folder.exists():
                try:
                    yield folder
                finally:
                    with suppress(BlockingIOError):  # somebody else reads it
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        _remove(place, key)
                return
        with _locked(place, key, fcntl.LOCK_EX):
            if not folder.exists():
                filling = folder.with_suffix(".filling")
                shutil.rmtree(filling, ignore_errors=True)
                filling.mkdir()
                try:
                    fill(filling)
                except BaseException:
                    _remove(place, key)
                    raise
                filling.rename(folder)


@contextmanager
def _locked(place: Path, key: str, how: int) -> Iterator[int]:
    """The file descriptor of a lock for the key. Raises BlockingIOError where `how` says not to wait."""
    path = place / f"{key}.lock"
    while True:
        with path.open("w") as file:
            fcntl.flock(file, how)
            if _is_at(path, file.fileno()):  # else it was removed before it was locked
                yield file.fileno()
                return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(place: Path, key: str) -> None:
    for folder in (place / key, place / f"{key}.filling"):
        shutil.rmtree(folder, ignore_errors=True)
    (place / f"{key}.lock").unlink()
