"""The one seam on storage: every path is a string, a local path or a URI that pyarrow.fs opens (s3://, gs://, ...)."""

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from pyarrow import NativeFile, fs

from unlearn_ray.engine.copies import shared_copy
from unlearn_ray.engine.filesystems import OBJECT_STORES, create, open_path, patiently, put
from unlearn_ray.errors import InputError, StepFailed

SETTLE_S = 1.0  # within which writes at the same time to a storage without conditions are over
PIECE = 1 << 24  # bytes of a read: a request each, in an object store


def join(*parts: str) -> str:
    """The path of a file below a folder."""
    return "/".join([part.rstrip("/") for part in parts[:-1]] + [parts[-1]])


def exists(path: str) -> bool:
    """Whether a file or a folder is there."""
    return _info(path).type != fs.FileType.NotFound


def read_bytes(path: str, at_most: int | None = None) -> bytes:
    """The content of a file, or its beginning.

    Raises FileNotFoundError where there is no such file, and StepFailed where it cannot be read, as all readers here.
    """
    system, inner = open_path(path)

    def read() -> bytes:
        with system.open_input_stream(inner) as stream:
            return b"".join(_pieces(stream)) if at_most is None else stream.read(at_most)

    with _reading(path):
        return patiently(read)


def read_text(path: str) -> str:
    """A text that a user wrote, without a byte order mark. Raises InputError where it is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 (byte {error.object[error.start]:#04x}); convert it, with iconv"
        ) from error


def read_json(path: str) -> Any:
    return json.loads(read_bytes(path))


def write_json(path: str, value: Any) -> None:
    """Atomic; NaN and infinity are refused (ValueError), because no other reader of JSON takes them."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_lines(path: str, rows: Iterable[Any]) -> None:
    """A JSONL file, atomic."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file or nothing: a reader sees the old content or the new one, also after a crash or a power cut.

    Object stores give that by themselves; a local file is written beside its place, synced and renamed. Folders are
    made as needed. Raises StepFailed with the path where there is no space or no permission, as all writers here do.
    """
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: str) -> Iterator[IO[bytes]]:
    """A file to write in pieces, that is there as a whole when the context ends without an error, or not at all.

    For an object store the pieces are gathered in a local file: a stream of pyarrow cannot be given up, it leaves what
    has been written so far as a whole object.
    """
    system, inner = open_path(path)
    with _writing(path):
        if isinstance(system, fs.LocalFileSystem):
            with _replacing(Path(inner)) as file:
                yield file
        else:
            with tempfile.NamedTemporaryFile(prefix="unlearn-ray-") as file:
                yield file
                file.flush()
                put(path, Path(file.name))


def write_new(path: str, data: bytes) -> bool:
    """Write a file that must not exist yet; False where it does, or another was faster. The data must differ between
    those who try.

    A local file appears whole, by a hard link; S3, Google's and Azure's storage write on that condition. Elsewhere the
    last of several writers at once wins: each looks after a while whose data is there.
    """
    system, inner = open_path(path)
    if exists(path):
        return False
    with _writing(path):
        if path.startswith(OBJECT_STORES):
            return create(path, data)
        if isinstance(system, fs.LocalFileSystem):
            return _link_new(Path(inner), data)
        write_atomic(path, data)
        time.sleep(SETTLE_S)
        return read_bytes(path) == data


def _link_new(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(data)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def make_folder(path: str) -> None:
    """Make a local folder and those above it; object stores have none and need none."""
    system, inner = open_path(path)
    if isinstance(system, fs.LocalFileSystem):
        with _writing(path):
            os.makedirs(inner, exist_ok=True)


def list_files(folder: str) -> list[str]:
    """All files below a folder, sorted; none where there is no such folder."""
    inner = open_path(folder)[1]
    return sorted(join(folder, info.path[len(inner) :].lstrip("/")) for info in _files_below(folder))


def bytes_below(folder: str) -> int:
    """The sizes of all files below a folder."""
    return sum(info.size for info in _files_below(folder))


def expand(patterns: str | Sequence[str]) -> list[str]:
    """The files that paths and globs name (`*`, `?`, `[ab]`, `**` for any depth), sorted, each once.

    Hidden files are only found by a pattern that says so. Raises InputError for a pattern that matches no file, and for
    a storage that cannot be read.
    """
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        with _reading(pattern, InputError):
            files = [pattern] if _info(pattern).type == fs.FileType.File else _matching(pattern)
        if not files:
            raise InputError(f"{pattern}: no such file; a folder is given as a glob, such as {join('FOLDER', '*.txt')}")
        found.update(files)
    return sorted(found)


def sha256_of(path: str) -> str:
    """The hash of a file's content, read in pieces; once in this process for a file that stays as it is. Raises
    InputError where there is no such file, or no way to it.
    """
    with _reading(path, InputError):
        info = _info(path)
        if info.type != fs.FileType.File:
            raise InputError(f"{path}: no such file")
        return (_sha256 if info.mtime_ns else _sha256.__wrapped__)(path, info.size, info.mtime_ns)


@cache
def _sha256(path: str, size: int, changed: int | None) -> str:
    system, inner = open_path(path)
    return patiently(lambda: _hash(system, inner))


def list_folders(folder: str) -> list[str]:
    """The folders in a folder, sorted, without what is in them; none where there is no such folder."""
    system, inner = open_path(folder)
    found = system.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return sorted(join(folder, info.base_name) for info in found if info.type == fs.FileType.Directory)


@contextmanager
def local_folder(path: str, without: str = "") -> Iterator[str]:
    """A local folder with the content of `path`, for libraries that read only those: itself, or a copy for a while,
    only to read.

    without: a pattern of file names that a copy can do without.
    """
    system, inner = open_path(path)
    if isinstance(system, fs.LocalFileSystem):
        yield inner
        return
    files = [one for one in _files_below(path) if not fnmatchcase(one.base_name, without)]

    def fill(copy: Path) -> None:
        for file in files:
            below = file.path[len(inner) :].lstrip("/")
            with _reading(join(path, below)):
                patiently(partial(_download, system, file.path, copy / below))

    content = [path, *sorted(f"{file.path} {file.size} {file.mtime_ns}" for file in files)]
    with shared_copy(hashlib.sha256("\n".join(content).encode()).hexdigest(), fill) as copy:
        yield str(copy)


def upload_folder(local: str, path: str) -> None:
    """Copy the files below a local folder to `path`."""
    for file in Path(local).rglob("*"):
        if file.is_file():
            into = join(path, file.relative_to(local).as_posix())
            make_folder(into.rpartition("/")[0])
            with _writing(into):
                put(into, file)


def remove(path: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    system, inner = open_path(path)
    with _writing(path):
        match _info(path).type:
            case fs.FileType.File:
                system.delete_file(inner)
            case fs.FileType.Directory:
                system.delete_dir(inner)


def _info(path: str) -> fs.FileInfo:
    system, inner = open_path(path)
    with _reading(path):
        return system.get_file_info(inner)


def _files_below(folder: str) -> list[fs.FileInfo]:
    system, inner = open_path(folder)
    with _reading(folder):
        found = system.get_file_info(fs.FileSelector(inner, recursive=True, allow_not_found=True))
    return [info for info in found if info.is_file]


@contextmanager
def _reading(path: str, kind: type[Exception] = StepFailed) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:  # below a file there is nothing
        raise FileNotFoundError(path) from error
    except (OSError, StepFailed) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        raise kind(f"cannot read {path}: {reason}") from error


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepFailed(f"cannot write {path}: {error} (what is finished is kept; mend this and run again)") from error


def _hash(system: fs.FileSystem, inner: str) -> str:
    digest = hashlib.sha256()
    with system.open_input_stream(inner) as stream:
        for piece in _pieces(stream):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(stream: NativeFile) -> Iterator[bytes]:
    """All that is in a stream. Asked for it at once, pyarrow reads an object by 256 kB a request."""
    while piece := stream.read(PIECE):
        yield piece


def _download(system: fs.FileSystem, inner: str, local: Path) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    with system.open_input_stream(inner) as source, local.open("wb") as target:
        shutil.copyfileobj(source, target, PIECE)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _matching(pattern: str) -> list[str]:
    """The files that match a glob, found by listing the folder before its first wildcard."""
    parts = pattern.split("/")
    plain = next((at for at, part in enumerate(parts) if set("*?[") & set(part)), len(parts))
    if plain == len(parts):
        return []
    folder, rest = "/".join(parts[:plain]), parts[plain:]
    system, inner = open_path(folder or ("/" if pattern.startswith("/") else "."))
    selector = fs.FileSelector(inner, recursive=len(rest) > 1 or rest[0] == "**", allow_not_found=True)
    infos = [info for info in system.get_file_info(selector) if info.type == fs.FileType.File]
    found = [info.path[len(inner) :].strip("/").split("/") for info in infos]
    return ["/".join([*parts[:plain], *names]) for names in found if _matches(names, rest)]


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not names:
        return not names and all(pattern == "**" for pattern in patterns)
    hidden = names[0].startswith(".") and not patterns[0].startswith(".")
    if patterns[0] == "**":
        return _matches(names, patterns[1:]) or (not hidden and _matches(names[1:], patterns))
    return not hidden and fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])
