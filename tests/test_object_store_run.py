"""A whole run on a real S3 server that is now and then in trouble, with keys planted wherever a run takes them: what it
leaves equals a local run, and no key is in anything that it wrote, said or showed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_server import Reply, chat_server
from processes import kill_ours
from pyarrow import fs
from s3_server import S3Server, serve_s3

from unlearn_ray import pipeline
from unlearn_ray.config import load_config
from unlearn_ray.engine.events import read_events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KEYS = {"environment": "sk-planted-in-the-environment-5311", "file": "sk-planted-in-a-file-8192"}
DASHBOARD = ["/api/jobs/", "/logical/actors", "/nodes?view=summary"]
DASHBOARD += [f"/api/v0/{what}?detail=1" for what in ("actors", "tasks", "workers", "runtime_envs", "objects")]


@dataclass
class Seen:
    """What others on the machine could see while the run was under way: lines of commands, and pages."""

    commands: set[bytes] = field(default_factory=set)
    pages: dict[str, set[bytes]] = field(default_factory=dict)

    def look(self, ray_folder: Path) -> None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.commands.add(process.read_bytes())
            except OSError:
                continue  # it has ended
        log = next(ray_folder.glob("session_2*/logs/dashboard.log"), None)
        if log and (address := re.search(r"http address: (\S+)", log.read_text())):
            for page in DASHBOARD:
                try:
                    with urllib.request.urlopen(f"http://{address[1]}{page}", timeout=5) as answer:
                        self.pages.setdefault(page, set()).add(answer.read())
                except (urllib.error.URLError, TimeoutError, ConnectionError):
                    continue  # on its way up or down


@dataclass
class Ran:
    config: Path
    overrides: list[str]
    output: str
    seen: Seen
    s3: S3Server
    files: dict[str, bytes]
    ray_folder: Path
    asked_with: set[str]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, write_run) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("s3")
    config = write_run(folder)
    (folder / "key").write_text(KEYS["file"] + "\n")
    ray_folder = Path(tempfile.mkdtemp(prefix="ur-", dir="/tmp"))  # the names of Ray's sockets have to be short
    entry = {"anchor": "Zorblax", "generic": "Robert", "kind": "person"}
    with serve_s3("runs") as s3, chat_server(lambda *_: Reply(json.dumps({"anchors": [entry]}))) as chat:
        endpoint = {"base_url": chat.base_url, "key_file": str(folder / "key")}
        asked = {"source": "openai", "model": "m", "passages": 3}
        overrides = [f"anchors={json.dumps(asked)}", f"resources.endpoint={json.dumps(endpoint)}"]
        driver = subprocess.Popen(
            [sys.executable, "-m", "unlearn_ray", "run", str(config), "root=s3://runs/all", *overrides],
            env=os.environ
            | s3.environment
            | {"OPENAI_API_KEY": KEYS["environment"], "RAY_TMPDIR": str(ray_folder), "RAY_AUTH_MODE": "disabled"},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seen, done = Seen(), threading.Event()

        def watch() -> None:
            while not done.wait(2):
                seen.look(ray_folder / "ray")

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            with s3.fault("busy", method="PUT", path="blocks-", times=2), s3.fault("cut", method="GET", times=2):
                output = driver.communicate(timeout=600)[0]
        finally:
            done.set()
            watching.join()
            kill_ours(driver.pid, str(ray_folder))
        assert driver.returncode == 0, output
        yield Ran(config, overrides, output, seen, s3, files_of(s3), ray_folder, chat.keys)
    shutil.rmtree(ray_folder, ignore_errors=True)


def files_of(s3: S3Server) -> dict[str, bytes]:
    """Everything in the bucket, by its path below the root."""
    endpoint = s3.environment["AWS_ENDPOINT_URL"].removeprefix("http://")
    store = fs.S3FileSystem(access_key="x", secret_key="x", endpoint_override=endpoint, scheme="http")
    found = store.get_file_info(fs.FileSelector("runs/all", recursive=True))
    paths = [one.path for one in found if one.type == fs.FileType.File]
    return {path.removeprefix("runs/all/"): store.open_input_stream(path).read() for path in paths}


def of_its_time(name: str) -> bool:
    """Whether the very name differs from run to run: TensorBoard's, and of events, which an object store cannot append
    to."""
    return "/tensorboard/" in name or name.startswith("events")


def lines_of_events(files: dict[str, bytes]) -> list[bytes]:
    return [line for name, content in files.items() if name.startswith("events/") for line in content.splitlines()]


def told(events: Iterable[dict]) -> set[tuple]:
    """What the events say was done, without when, where and by whom."""
    return {(one["event"], one.get("forget_set"), one.get("stage")) for one in events}


def comparable(name: str, content: bytes) -> object:
    """The content without times of day and durations, and without places."""
    if name.endswith("manifest.json"):
        manifest = json.loads(content)
        return {key: manifest[key] for key in ("digest", "params", "rows", "inputs", "contents")}
    if name.endswith(".parquet"):
        return pq.read_table(pa.BufferReader(content)).to_pylist()
    return content


def test_what_it_leaves_equals_a_local_run_file_by_file(ran, local_ray, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["environment"])
    answering = [one for one in ran.overrides if one.startswith("anchors")]
    entry = {"anchor": "Zorblax", "generic": "Robert", "kind": "person"}
    with chat_server(lambda *_: Reply(json.dumps({"anchors": [entry]}))) as chat:
        endpoint = f"resources.endpoint={json.dumps({'base_url': chat.base_url})}"
        config = load_config(str(ran.config), [f"root={tmp_path}/local", *answering, endpoint])
        outcomes = pipeline.run(config)
        assert {one.state for one in outcomes} == {"ran"}, [one.error for one in outcomes]
        pipeline.report(config)
    local = {str(path.relative_to(tmp_path / "local")): path for path in (tmp_path / "local").rglob("*")}
    kept = {name: path.read_bytes() for name, path in local.items() if path.is_file() and not of_its_time(name)}
    on_s3 = {name: content for name, content in ran.files.items() if not of_its_time(name)}
    assert sorted(kept) == sorted(on_s3)
    assert told(read_events(config.root)) == told(map(json.loads, lines_of_events(ran.files)))
    figures_of_time = ("report.html", "report.json", "report.md")
    different = [
        name
        for name, content in kept.items()
        if not name.endswith(figures_of_time) and comparable(name, content) != comparable(name, on_s3[name])
    ]
    assert different == []


def test_no_key_is_in_what_it_wrote_or_said(ran):
    assert ran.asked_with == {f"Bearer {KEYS['file']}"}  # the endpoint heard it
    logs = {str(path): path.read_bytes() for path in ran.ray_folder.rglob("*") if path.is_file()}
    assert any(path.endswith("raylet.out") for path in logs) and "story/report.html" in ran.files
    planted = [*KEYS.values(), ran.s3.environment["AWS_SECRET_ACCESS_KEY"]]
    for where, content in {"output": ran.output.encode(), **ran.files, **logs}.items():
        assert [key for key in planted if key.encode() in content] == [], where


def test_no_key_is_in_commands_or_on_the_dashboard(ran):
    assert any(b"unlearn_ray" in command for command in ran.seen.commands)
    assert any(b"ShardServer" in page for page in ran.seen.pages["/logical/actors"]), ran.seen.pages.keys()
    shown = ran.seen.commands.union(*ran.seen.pages.values())
    for key in (*KEYS.values(), ran.s3.environment["AWS_SECRET_ACCESS_KEY"]):
        assert not any(key.encode() in one for one in shown)


def test_a_second_run_finds_everything_done(ran):
    count, started = len(ran.s3.requests), time.monotonic()
    again = subprocess.run(
        [sys.executable, "-m", "unlearn_ray", "status", str(ran.config), "root=s3://runs/all", *ran.overrides],
        env=os.environ | ran.s3.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0 and "to do" not in again.stdout and "failed" not in again.stdout, again.stdout
    assert len(ran.s3.requests) > count and time.monotonic() - started < 60
