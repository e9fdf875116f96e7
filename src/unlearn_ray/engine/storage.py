"""The one seam on storage: every path is a string, a local path or a URI that pyarrow.fs opens (s3://, gs://, ...)."""

import hashlib
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from unlearn_ray.errors import InputError, StepFailed

SETTLE_S = 1.0  # within which writes at the same time to an object store are over


def join(*parts: str) -> str:
    """The path of a file below a folder."""
    return "/".join([part.rstrip("/") for part in parts[:-1]] + [parts[-1]])


def exists(path: str) -> bool:
    """Whether a file or a folder is there."""
    return _info(path).type != fs.FileType.NotFound


def read_bytes(path: str) -> bytes:
    system, inner = _open(path)
    with system.open_input_stream(inner) as stream:
        return stream.read()


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
    """A file to write in pieces, that is there as a whole when the context ends without an error, or not at all."""
    system, inner = _open(path)
    with _writing(path):
        if isinstance(system, fs.LocalFileSystem):
            with _replacing(Path(inner)) as file:
                yield file
        else:
            with system.open_output_stream(inner) as stream:
                yield stream


def write_new(path: str, data: bytes) -> bool:
    """Write a file that must not exist yet; False where it does, or another was faster. The data must differ between
    those who try.

    A local file appears whole, by a hard link. An object store lets the last of several writers at once win: each looks
    after a while whose data is there.
    """
    system, inner = _open(path)
    if exists(path):
        return False
    if isinstance(system, fs.LocalFileSystem):
        return _link_new(path, Path(inner), data)
    with _writing(path), system.open_output_stream(inner) as stream:
        stream.write(data)
    time.sleep(SETTLE_S)
    return read_bytes(path) == data


def _link_new(path: str, inner: Path, data: bytes) -> bool:
    with _writing(path):
        inner.parent.mkdir(parents=True, exist_ok=True)
        temporary = inner.with_name(f".{inner.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            temporary.write_bytes(data)
            os.link(temporary, inner)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
    return True


def make_folder(path: str) -> None:
    """Make a local folder and those above it; object stores have none and need none."""
    system, inner = _open(path)
    if isinstance(system, fs.LocalFileSystem):
        with _writing(path):
            os.makedirs(inner, exist_ok=True)


def list_files(folder: str) -> list[str]:
    """All files below a folder, sorted; none where there is no such folder."""
    system, inner = _open(folder)
    selector = fs.FileSelector(inner, recursive=True, allow_not_found=True)
    found = [info.path for info in system.get_file_info(selector) if info.type == fs.FileType.File]
    return sorted(join(folder, path[len(inner) :].lstrip("/")) for path in found)


def bytes_below(folder: str) -> int:
    """The sizes of all files below a folder."""
    system, inner = _open(folder)
    found = system.get_file_info(fs.FileSelector(inner, recursive=True, allow_not_found=True))
    return sum(info.size for info in found if info.type == fs.FileType.File)


def expand(patterns: str | Sequence[str]) -> list[str]:
    """The files that paths and globs name (`*`, `?`, `[ab]`, `**` for any depth), sorted, each once.

    Hidden files are only found by a pattern that says so. Raises InputError for a pattern that matches no file.
    """
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files = [pattern] if _info(pattern).type == fs.FileType.File else _matching(pattern)
        if not files:
            raise InputError(f"{pattern}: no such file; a folder is given as a glob, such as {join('FOLDER', '*.txt')}")
        found.update(files)
    return sorted(found)


def sha256_of(path: str) -> str:
    """The hash of a file's content, read in pieces; once in this process for a file that stays as it is. Raises
    InputError where there is no such file.
    """
    info = _info(path)
    if info.type != fs.FileType.File:
        raise InputError(f"{path}: no such file")
    return (_sha256 if info.mtime_ns else _sha256.__wrapped__)(path, info.size, info.mtime_ns)


@cache
def _sha256(path: str, size: int, changed: int | None) -> str:
    system, inner = _open(path)
    digest = hashlib.sha256()
    with system.open_input_stream(inner) as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def list_folders(folder: str) -> list[str]:
    """The folders in a folder, sorted, without what is in them; none where there is no such folder."""
    system, inner = _open(folder)
    found = system.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return sorted(join(folder, info.base_name) for info in found if info.type == fs.FileType.Directory)


@contextmanager
def local_folder(path: str) -> Iterator[str]:
    """A local folder with the content of `path`, for libraries that read only those: itself, or a copy for a while."""
    system, inner = _open(path)
    if isinstance(system, fs.LocalFileSystem):
        yield inner
    else:
        with tempfile.TemporaryDirectory(prefix="unlearn-ray-") as copy:
            fs.copy_files(inner, copy, source_filesystem=system, destination_filesystem=fs.LocalFileSystem())
            yield copy


def upload_folder(local: str, path: str) -> None:
    """Copy the files below a local folder to `path`."""
    system, inner = _open(path)
    make_folder(path)
    with _writing(path):
        fs.copy_files(local, inner, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)


def remove(path: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    system, inner = _open(path)
    match _info(path).type:
        case fs.FileType.File:
            system.delete_file(inner)
        case fs.FileType.Directory:
            system.delete_dir(inner)


def _open(path: str) -> tuple[fs.FileSystem, str]:
    scheme, separator, rest = path.removeprefix("file://").partition("://")
    if not separator:
        return fs.LocalFileSystem(), os.path.abspath(scheme)
    if re.search(r"\?\w+=", rest):
        raise InputError(f"{path}: give the options of a URI in the environment (AWS_ENDPOINT_URL, AWS_REGION, ...)")
    # Only the bucket is read as a URI: names below it may hold spaces, brackets and what else a URI cannot.
    bucket, _, below = rest.partition("/")
    system, base = _filesystem(f"{scheme}://{bucket}")
    return system, f"{base.rstrip('/')}/{below}".rstrip("/")


@cache
def _filesystem(bucket: str) -> tuple[fs.FileSystem, str]:
    try:
        return fs.FileSystem.from_uri(bucket)
    except (pa.ArrowException, ValueError, ImportError, OSError) as error:
        raise InputError(f"{bucket}: pyarrow.fs cannot open this storage: {error}") from error


def _info(path: str) -> fs.FileInfo:
    system, inner = _open(path)
    return system.get_file_info(inner)


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepFailed(f"cannot write {path}: {error} (what is finished is kept; mend this and run again)") from error


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
    system, inner = _open(folder or ("/" if pattern.startswith("/") else "."))
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
