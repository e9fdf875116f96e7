"""Storage on a real S3 server that is slow, fails, refuses, is full, hangs up or is not there."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from unlearn_ray.engine import filesystems, storage
from unlearn_ray.engine.filesystems import ATTEMPTS, REQUEST_TIMEOUT_S
from unlearn_ray.errors import InputError, StepFailed

ROOT = "s3://runs/root"


def path(name: str) -> str:
    return storage.join(ROOT, name)


def test_what_is_written_is_read_listed_hashed_and_removed(s3):
    storage.write_atomic(path("The Wind [1908] 100%.txt"), b"abc")
    storage.write_json(path("step/manifest.json"), {"name": "Zoë"})
    assert storage.read_json(path("step/manifest.json")) == {"name": "Zoë"}
    assert storage.list_files(ROOT) == [path("The Wind [1908] 100%.txt"), path("step/manifest.json")]
    assert storage.expand(path("The*")) == [path("The Wind [1908] 100%.txt")]
    assert storage.sha256_of(path("The Wind [1908] 100%.txt")).startswith("ba7816bf")
    storage.remove(path("step"))
    assert storage.list_files(ROOT) == [path("The Wind [1908] 100%.txt")]


def test_folders_go_up_and_come_down_whole(s3, tmp_path):
    files = {"config.json": b"{}", "sub/model.safetensors": bytes(range(256)) * 90_000, "empty": b""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with s3.fault("dropped", method="PUT", path="model.safetensors", times=2):
        storage.upload_folder(str(tmp_path), path("model"))
    with s3.fault("cut", method="GET", path="model.safetensors", times=2), storage.local_folder(path("model")) as copy:
        assert {name: Path(copy, name).read_bytes() for name in files} == files


def test_a_file_is_read_in_few_requests(s3):
    data = bytes(range(256)) * 40_000
    storage.write_atomic(path("labels.parquet"), data)
    before = len(s3.requests)
    assert storage.read_bytes(path("labels.parquet")) == data
    assert [method for method, _ in s3.requests[before:]] == ["HEAD", "GET"]


@pytest.mark.parametrize("kind", ["broken", "busy", "dropped", "unheard", "slow"])
def test_a_trouble_that_passes_is_waited_out(s3, kind):
    with s3.fault(kind, method="PUT", path="passing", times=2, seconds=1) as fault:
        storage.write_atomic(path("passing"), kind.encode())
    with s3.fault(kind, method="GET", path="passing", times=2, seconds=1):
        assert storage.read_bytes(path("passing")) == kind.encode()
    assert fault.met


@pytest.mark.slow
def test_a_server_that_takes_long_to_answer_is_waited_for(s3):
    storage.write_atomic(path("slow"), b"x")
    with s3.fault("slow", method="GET", times=1, seconds=5):  # pyarrow by itself gives up after 3
        assert storage.read_bytes(path("slow")) == b"x"
    assert REQUEST_TIMEOUT_S > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "said"), [("broken", "500"), ("dropped", ""), ("forbidden", "403"), ("full", "507 Insufficient Storage")]
)
def test_a_trouble_that_stays_is_one_line_in_bounded_time_and_leaves_the_old_content(s3, kind, said):
    storage.write_atomic(path("manifest.json"), b"old")
    started = time.monotonic()
    with (
        s3.fault(kind, method="PUT", path="manifest.json") as fault,
        pytest.raises(StepFailed, match=r"cannot write s3://runs/root/manifest\.json: .*run again") as raised,
    ):
        storage.write_atomic(path("manifest.json"), b"new")
    assert fault.met <= ATTEMPTS and time.monotonic() - started < 60
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in str(raised.value)
    assert storage.read_bytes(path("manifest.json")) == b"old"


@pytest.mark.slow
def test_a_connection_lost_in_the_middle_of_a_large_write_leaves_nothing(s3):
    with (
        s3.fault("dropped", method="PUT", path="state.pt"),
        pytest.raises(StepFailed, match=r"state\.pt"),
        storage.writing(path("state.pt")) as file,
    ):
        file.write(bytes(20_000_000))  # three parts
    assert not storage.exists(path("state.pt"))


def test_an_upload_whose_last_request_fails_is_no_success(s3, tmp_path):
    (tmp_path / "weights").write_bytes(bytes(20_000_000))
    with s3.fault("forbidden", method="POST", path="weights"), pytest.raises(StepFailed, match="weights"):
        storage.upload_folder(str(tmp_path), path("upload"))
    assert storage.list_files(path("upload")) == []


@pytest.mark.parametrize("kind", ["unheard", "hesitant"])
def test_an_upload_whose_last_answer_is_lost_or_takes_long_is_a_success(s3, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(filesystems, "REQUEST_TIMEOUT_S", 1)
    monkeypatch.setattr(filesystems, "_store", filesystems._store.__wrapped__)
    (tmp_path / "weights").write_bytes(bytes(20_000_000))
    last = f"answer-{kind}/weights?uploadId"
    with s3.fault(kind, method="POST", path=last, times=1, seconds=3):
        storage.upload_folder(str(tmp_path), path(f"answer-{kind}"))
    completions = [request for _, request in s3.requests if last in request]
    assert len(completions) == (2 if kind == "unheard" else 1)
    assert storage.read_bytes(path(f"answer-{kind}/weights")) == bytes(20_000_000)


def test_a_writer_that_fails_half_way_leaves_the_old_content(s3):
    storage.write_atomic(path("half"), b"old")
    with pytest.raises(ZeroDivisionError), storage.writing(path("half")) as file:
        file.write(b"half of the n")
        raise ZeroDivisionError
    assert storage.read_bytes(path("half")) == b"old"


def test_of_many_that_create_a_file_at_once_one_wins(s3):
    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(lambda number: storage.write_new(path("lock"), str(number).encode()), range(48)))
    assert sum(won) == 1
    assert storage.read_bytes(path("lock")) == str(won.index(True)).encode()


def test_who_created_a_file_knows_it_also_when_the_answer_was_lost(s3):
    with s3.fault("unheard", method="PUT", path="unheard", times=1):
        assert storage.write_new(path("unheard"), b"same")
    assert not storage.write_new(path("unheard"), b"same")


def test_a_bucket_that_is_not_there_or_forbidden_is_one_line(s3):
    with pytest.raises(StepFailed, match=r"cannot write s3://nowhere/x: .*NoSuchBucket"):
        storage.write_new("s3://nowhere/x", b"")
    with s3.fault("forbidden"):
        with pytest.raises(InputError, match=r"cannot read s3://runs/books/\*\.txt: .*ACCESS_DENIED"):
            storage.expand("s3://runs/books/*.txt")
        with pytest.raises(StepFailed, match=r"cannot read s3://runs/x: .*ACCESS_DENIED"):
            storage.read_json("s3://runs/x")


@pytest.mark.parametrize("uri", ["s3://AKIAKEY:planted@runs/x", "s3://runs/x?access_key=AKIAKEY&secret_key=planted"])
def test_a_uri_with_keys_is_refused_and_not_repeated(uri):
    with pytest.raises(InputError, match="in the environment") as raised:
        storage.exists(uri)
    assert "planted" not in str(raised.value) and "AKIAKEY" not in str(raised.value)


def test_a_google_storage_that_does_not_answer_is_one_line_in_bounded_time(monkeypatch):
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(filesystems, "GIVE_UP", timedelta(seconds=2))
    started = time.monotonic()
    with pytest.raises(StepFailed, match=r"cannot read gs://runs/x: .*Retry policy exhausted") as raised:
        storage.exists("gs://runs/x")
    assert time.monotonic() - started < 30 and "\n" not in str(raised.value)
