import os
import resource
import uuid
from pathlib import Path

import pytest

from unlearn_ray.engine import storage
from unlearn_ray.errors import InputError, StepFailed


@pytest.fixture(params=["local", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"fsspec+memory://{uuid.uuid4().hex}/runs"


def write(root: str, *names: str) -> None:
    for name in names:
        storage.write_atomic(storage.join(root, name), name.encode())


def test_what_is_written_is_read_back(root):
    path = storage.join(root, "set", "step", "file.json")
    assert not storage.exists(path)
    storage.write_json(path, {"name": "Zoë", "loss": 0.5})
    assert storage.exists(path) and storage.exists(storage.join(root, "set"))
    assert storage.read_json(path) == {"name": "Zoë", "loss": 0.5}
    storage.write_atomic(path, b"")
    assert storage.read_bytes(path) == b""


def test_json_that_others_cannot_read_is_refused(root):
    with pytest.raises(ValueError, match="JSON compliant"):
        storage.write_json(storage.join(root, "x.json"), {"loss": float("nan")})
    assert storage.list_files(root) == []


def test_files_are_listed_below_a_folder_with_usable_paths(root):
    write(root, "b.txt", "a/c.txt", "a/d/e.txt")
    assert storage.list_files(root + "/") == [storage.join(root, name) for name in ("a/c.txt", "a/d/e.txt", "b.txt")]
    assert storage.read_bytes(storage.list_files(root)[1]) == b"a/d/e.txt"
    assert storage.list_files(storage.join(root, "absent")) == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[!a].txt", ["b.txt"]),
        ("c/*", ["c/d.txt"]),
        ("*/*.txt", ["c/d.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "c/d.txt", "c/e/f.txt"]),
        ("c/**", ["c/d.txt", "c/e/f.txt"]),
        (".*", [".hidden.txt"]),
        ("x[1].md", ["x[1].md"]),
    ],
)
def test_globs_name_files(root, pattern, names):
    write(root, "a.txt", "b.txt", ".hidden.txt", "c/d.txt", "c/e/f.txt", "c/.git/g.txt", "x[1].md")
    assert storage.expand(storage.join(root, pattern)) == [storage.join(root, name) for name in names]


def test_several_globs_name_each_file_once_in_order(root):
    write(root, "a.txt", "b.txt")
    patterns = [storage.join(root, "b.txt"), storage.join(root, "*.txt")]
    assert storage.expand(patterns) == [storage.join(root, "a.txt"), storage.join(root, "b.txt")]


def test_relative_globs_give_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(".", "data/a.txt")
    assert storage.expand("data/*.txt") == ["data/a.txt"]
    assert storage.expand("*/a.txt") == ["data/a.txt"]


@pytest.mark.parametrize("pattern", ["absent.txt", "*.md", "c", "absent/*"])
def test_a_glob_without_a_file_is_an_error_that_names_it(root, pattern):
    write(root, "c/d.txt")
    with pytest.raises(InputError, match="no such file") as raised:
        storage.expand([storage.join(root, "c/*"), storage.join(root, pattern)])
    assert storage.join(root, pattern) in str(raised.value)


def test_the_hash_is_that_of_the_content(root):
    write(root, "a")
    assert storage.sha256_of(storage.join(root, "a")) == (
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    )


def test_a_new_file_is_written_once(root):
    path = storage.join(root, "new", "lock")
    assert storage.write_new(path, b"first")
    assert not storage.write_new(path, b"second")
    assert storage.read_bytes(path) == b"first"


def test_folders_go_up_and_come_down(root, tmp_path_factory):
    local = tmp_path_factory.mktemp("local")
    (local / "sub").mkdir()
    (local / "sub" / "a.txt").write_text("a")
    storage.upload_folder(str(local), storage.join(root, "model"))
    with storage.local_folder(storage.join(root, "model")) as folder:
        assert Path(folder, "sub", "a.txt").read_text() == "a"
        is_copy = not root.startswith("/")
    assert Path(folder).exists() != is_copy


def test_remove_takes_files_folders_and_nothing(root):
    write(root, "a.txt", "b/c.txt", "d.txt")
    for name in ("a.txt", "b", "absent"):
        storage.remove(storage.join(root, name))
    assert storage.list_files(root) == [storage.join(root, "d.txt")]


def test_a_write_that_finds_no_room_leaves_the_old_content(tmp_path):
    """A limit on the size of files stands in for a full disk: the same failing write() call."""
    path = str(tmp_path / "manifest.json")
    storage.write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StepFailed, match=r"cannot write .*manifest\.json"):
            storage.write_atomic(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["manifest.json"]
    assert storage.read_bytes(path) == b"old"


def test_a_path_that_cannot_be_a_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StepFailed, match=r"cannot write .*/file/below"):
        storage.make_folder(str(tmp_path / "file" / "below"))


def test_names_may_hold_what_a_uri_cannot(root):
    write(root, "The Wind [1908] 100%.txt")
    [path] = storage.list_files(root)
    assert storage.expand(path) == storage.expand(storage.join(root, "The*.txt")) == [path]
    assert storage.read_bytes(path) == b"The Wind [1908] 100%.txt"


@pytest.mark.parametrize("uri", ["foo://bucket/x", "s3://bucket/x?endpoint_override=localhost"])
def test_a_uri_that_cannot_be_used_is_refused(uri):
    with pytest.raises(InputError, match=r"foo://bucket|s3://bucket/x"):
        storage.exists(uri)


def test_a_file_uri_is_a_local_path(tmp_path):
    write(f"file://{tmp_path}", "a b.txt")
    assert (tmp_path / "a b.txt").read_text() == "a b.txt"
