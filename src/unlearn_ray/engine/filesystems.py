"""What opens a path: a local one, or a URI of pyarrow.fs (s3://, gs://, ...). Keys come from the environment, from
files that the cloud's own tools read, or from the role of a node: never from a path, which ends up in logs.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url
from pyarrow import fs

from unlearn_ray.errors import InputError

T = TypeVar("T")

# An endpoint that is down is given up after about a minute; pyarrow's own settings give up a read of S3 after 3 s of
# silence, and one of Google's storage without keys after 15 minutes.
GIVE_UP = timedelta(seconds=60)
REQUEST_TIMEOUT_S = 20  # of silence
COMPLETION_TIMEOUT_S = 600  # S3 may take minutes to put an upload together, and sends spaces meanwhile
CONNECT_TIMEOUT_S = 5
ATTEMPTS = 6
OBJECT_STORES = ("s3://", "gs://", "abfs://", "abfss://")
"""What obstore writes to. pyarrow reads everything, but its streams cannot be given up: one that is closed or forgotten
in the middle of an error leaves a cut object, and an error of completing one can be lost (fs.copy_files says nothing).
"""
PARTS = 9000  # of an upload at most: stores take 10000
PART_BYTES = 8 << 20


def open_path(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path, and the path in it. Raises InputError for a URI that cannot be opened, or holds keys
    or options.
    """
    scheme, separator, rest = path.removeprefix("file://").partition("://")
    if not separator:
        return fs.LocalFileSystem(), os.path.abspath(scheme)
    # Only the bucket is read as a URI: names below it may hold spaces, brackets and what else a URI cannot.
    bucket, _, below = rest.partition("/")
    if "@" in bucket and scheme != "abfss":
        raise InputError(
            f"{scheme}://...@{bucket.rpartition('@')[2]}: no keys in a URI, which is written to logs and manifests; "
            "give them in the environment (AWS_ACCESS_KEY_ID, ...)"
        )
    if options := re.search(r"\?\w+=", rest):
        raise InputError(
            f"{scheme}://{rest[: options.start()]}?...: give the options of a URI in the environment "
            "(AWS_ENDPOINT_URL, AWS_REGION, ...)"
        )
    system, base = _filesystem(scheme, bucket)
    return system, f"{base.rstrip('/')}/{below}".rstrip("/")


def put(path: str, data: bytes | Path) -> None:
    """Write a whole object, from memory or a local file, in place of what is there; after an error that stays.

    Raises OSError.
    """
    if path.startswith(OBJECT_STORES):
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        store, key = _store_of(path)
        with _os_errors():
            obstore.put(store, key, data, chunk_size=max(PART_BYTES, size // PARTS))
        return
    system, inner = open_path(path)
    with system.open_output_stream(inner) as stream:
        if isinstance(data, bytes):
            stream.write(data)
        else:
            with data.open("rb") as file:
                shutil.copyfileobj(file, stream)


def create(path: str, data: bytes) -> bool:
    """Write an object that must not exist yet, by the store's own conditional write; False where it exists.

    A mark tells our own object, whose answer was lost on its way, from somebody else's. Raises OSError.
    """
    mark = uuid.uuid4().hex
    store, key = _store_of(path)
    with _os_errors():
        try:
            obstore.put(store, key, data, mode="create", attributes={"mark": mark}, use_multipart=False)
            return True
        except AlreadyExistsError:
            try:
                return obstore.get(store, key).attributes.get("mark") == mark
            except FileNotFoundError:
                return False


def patiently(read: Callable[[], T]) -> T:
    """What `read` returns, tried again where pyarrow does not: it takes an error of S3 that is longer than what it
    asked for (of a small file nearly each, "slow down" too) for a broken stream.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return read()
        except OSError as error:
            if "Failed to flush response stream" not in str(error):
                raise
            time.sleep(0.25 * 2**attempt)
    return read()


@contextmanager
def _os_errors() -> Iterator[None]:
    """obstore's errors as OSErrors of one line."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise OSError(" ".join(str(error).split("\nDebug source")[0].split())[:500]) from error


def _store_of(path: str) -> tuple[ObjectStore, str]:
    scheme, _, rest = path.partition("://")
    bucket, _, key = rest.partition("/")
    return _store(scheme, bucket), key


@cache
def _filesystem(scheme: str, bucket: str) -> tuple[fs.FileSystem, str]:
    try:
        if scheme == "s3":
            return _s3(bucket), bucket
        if scheme == "gs":
            return fs.GcsFileSystem(retry_time_limit=GIVE_UP), bucket
        return fs.FileSystem.from_uri(f"{scheme}://{bucket}")
    except (pa.ArrowException, ValueError, ImportError, OSError) as error:
        raise InputError(f"{scheme}://{bucket}: pyarrow.fs cannot open this storage: {error}") from error


def _s3(bucket: str) -> fs.S3FileSystem:
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
        region=region if endpoint.netloc else fs.resolve_s3_region(bucket),
        request_timeout=REQUEST_TIMEOUT_S,
        connect_timeout=CONNECT_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


@cache
def _store(scheme: str, bucket: str) -> ObjectStore:
    system, _ = _filesystem(scheme, bucket)
    of_aws = {"region": system.region, **_profile()} if isinstance(system, fs.S3FileSystem) else {}
    return from_url(
        f"{scheme}://{bucket}",
        client_options={
            "allow_http": True,
            "read_timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
            "timeout": timedelta(seconds=COMPLETION_TIMEOUT_S),
        },
        retry_config={
            "max_retries": ATTEMPTS - 1,
            "retry_timeout": GIVE_UP,
            "backoff": {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=20), "base": 2},
        },
        **of_aws,
    )


def _profile() -> dict:
    """Keys of ~/.aws, which obstore reads through boto3 alone; environment and roles of nodes it knows by itself."""
    if "AWS_ACCESS_KEY_ID" in os.environ:
        return {}
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return {"credential_provider": Boto3CredentialProvider()}
    except (ImportError, ValueError):
        return {}
