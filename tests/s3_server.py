"""A real S3 server (moto's) on loopback, that can be told to be slow, to fail, to refuse, to be full or to hang up."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from networks import Namespaces
from pyarrow.fs import S3FileSystem
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
SPACE_S = 0.2
STATUS = {
    "broken": ("500 Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    "busy": ("503 Service Unavailable", "SlowDown", "Please reduce your request rate."),
    "forbidden": ("403 Forbidden", "AccessDenied", "Access Denied"),
    "full": ("507 Insufficient Storage", "XMinioStorageFull", "Storage backend has reached its minimum free drive."),
}


@dataclass
class Fault:
    """What is wrong with the requests of that method whose path and query hold `path`, for the next `times` of them.

    kind: a key of STATUS; "slow", answered after `seconds`; "hesitant", spaces for so long and then the answer, as S3
    does it while it puts an upload together; "dropped", cut off after some of what it sends has been read; "unheard",
    done, and cut off before the answer; or "cut", cut off in the middle of the answer.
    """

    kind: str
    method: str = ""
    path: str = ""
    times: float = float("inf")
    seconds: float = 0.0
    met: int = 0


@dataclass
class S3Server:
    """environment: what programs need to use it. url_at_wire: its AWS_ENDPOINT_URL for those at the wire. requests:
    method and path of all that came."""

    environment: dict[str, str]
    url_at_wire: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @contextmanager
    def fault(self, kind: str, **details: Any) -> Iterator[Fault]:
        fault = Fault(kind, **details)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)

    def take(self, method: str, path: str) -> Fault | None:
        self.requests.append((method, path))
        for fault in self.faults:
            if fault.method in ("", method) and fault.path in path and fault.met < fault.times:
                fault.met += 1
                return fault
        return None


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


def _after_spaces(answer: Callable[[], Iterable[bytes]], seconds: float) -> Iterator[bytes]:
    for _ in range(round(seconds / SPACE_S)):
        yield b" "
        time.sleep(SPACE_S)
    yield from answer()


def _halved(answer: Iterable[bytes], connection: socket.socket) -> Iterator[bytes]:
    whole = b"".join(answer)
    yield whole[: len(whole) // 2]
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


@contextmanager
def serve_s3(*buckets: str, wire: Namespaces | None = None) -> Iterator[S3Server]:
    """The server, with these buckets, for as long as the context lasts; for what is at that wire, too."""
    moto = DomainDispatcherApplication(create_backend_app)
    s3 = S3Server({})

    def application(environ: dict, start_response: Callable) -> Iterable[bytes]:
        method, path, query = (environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"))
        fault = s3.take(method, f"{path}?{query}" if query else path)
        if fault is None:
            return moto(environ, start_response)
        if fault.kind == "slow":
            time.sleep(fault.seconds)
            return moto(environ, start_response)
        if fault.kind == "hesitant":
            start_response("200 OK", [("Content-Type", "application/xml")])
            return _after_spaces(lambda: moto(environ, lambda *_: None), fault.seconds)
        if fault.kind == "cut":
            return _halved(moto(environ, start_response), environ["werkzeug.socket"])
        if fault.kind == "unheard":
            list(moto(environ, lambda *_: None))
        if fault.kind in ("unheard", "dropped"):
            if fault.kind == "dropped":
                environ["wsgi.input"].read(min(1000, int(environ.get("CONTENT_LENGTH") or 0)))
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        status, code, message = STATUS[fault.kind]
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Type", "application/xml")])
        return [ERROR.format(code=code, message=message).encode()]

    def listen(host: str) -> BaseWSGIServer:
        return make_server(host, 0, application, threaded=True, request_handler=_Quiet)

    servers = [server := listen("127.0.0.1")]
    if wire:
        servers.append(wire.at_wire(lambda: listen(wire.HOST)))
    s3.url_at_wire = f"http://{servers[-1].host}:{servers[-1].server_port}"
    for one in servers:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    s3.environment |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "AKIAPLANTEDFORTESTS",
        "AWS_SECRET_ACCESS_KEY": "planted/secret+of+the+tests",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    keys = {"access_key": "x", "secret_key": "x", "scheme": "http"}
    store = S3FileSystem(endpoint_override=f"127.0.0.1:{server.server_port}", allow_bucket_creation=True, **keys)
    for bucket in buckets:
        store.create_dir(bucket)
    try:
        yield s3
    finally:
        for one in servers:
            one.shutdown()
