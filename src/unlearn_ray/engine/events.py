"""What happened in a run, a line an event, of every driver that ever worked on a root.

ROOT/events.jsonl where files can be appended to: a line is one write, so those of several drivers never mix. An object
store cannot append; there every driver writes small files, ROOT/events/DRIVER-N.jsonl.
"""

import json
import os
import threading
import time
from datetime import UTC, datetime
from typing import Any

from unlearn_ray.engine import storage

WHOLE, PARTS = "events.jsonl", "events"
FLUSH_S = 20


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Events:
    """The events of one driver: write() from any thread, close() at the end."""

    def __init__(self, root: str, driver: str):
        self._driver, self._guard = driver, threading.Lock()
        self._parts, self._lines, self._flushed = 0, [], time.monotonic()
        self._folder = storage.join(root, PARTS)
        self._file = None
        if "://" not in root:
            storage.make_folder(root)
            self._file = os.open(storage.join(root, WHOLE), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, event: str, **facts: Any) -> None:
        row = {"time": now(), "driver": self._driver, "event": event} | facts
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self._guard:
            if self._file is not None:
                os.write(self._file, line.encode())
                return
            self._lines.append(line)
            if time.monotonic() - self._flushed > FLUSH_S:
                self._flush()

    def close(self) -> None:
        with self._guard:
            if self._file is not None:
                os.close(self._file)
            else:
                self._flush()

    def _flush(self) -> None:
        if self._lines:
            path = storage.join(self._folder, f"{self._driver}-{self._parts:06d}.jsonl")
            storage.write_atomic(path, "".join(self._lines).encode())
            self._parts, self._lines = self._parts + 1, []
        self._flushed = time.monotonic()


def read_events(root: str) -> list[dict]:
    """All events of a root, in the order of their times. A line that a full disk cut short is left out."""
    whole = storage.join(root, WHOLE)
    files = [*([whole] if storage.exists(whole) else []), *storage.list_files(storage.join(root, PARTS))]
    rows = []
    for file in files:
        for line in storage.read_bytes(file).split(b"\n"):
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return sorted(rows, key=lambda row: row["time"])
