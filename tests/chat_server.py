"""An OpenAI-compatible chat endpoint on loopback that does what a test tells it to, good or bad, and counts."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server says once. text: the answer of the model; status other than 200: an HTTP error; hang: seconds
    before anything is sent; drop: the connection is closed in the middle of the body."""

    text: str = '{"anchors": []}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    refusal: str | None = None
    hang: float = 0.0
    drop: bool = False


@dataclass
class ChatServer:
    """base_url, and every request that came in: its body, and when."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    most_at_once: int = 0

    @property
    def passages(self) -> list[str]:
        """The message with the passage, of each request."""
        return [request["messages"][1]["content"] for request in self.requests]


@contextmanager
def chat_server(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[ChatServer]:
    """Serves in this process; reply(request body, number of the request from 0) is called for each."""
    lock, busy = threading.Lock(), 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": []}, {})

        def do_POST(self) -> None:
            nonlocal busy
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(state.requests)
                state.requests.append(body)
                state.times.append(time.monotonic())
                state.keys.add(self.headers.get("Authorization", ""))
                busy += 1
                state.most_at_once = max(state.most_at_once, busy)
            try:
                said = reply(body, number)
                time.sleep(said.hang)
                if said.status != 200:
                    self._send(said.status, {"error": {"message": "scripted"}}, said.headers)
                else:
                    self._send(200, _completion(body["model"], said), said.headers, drop=said.drop)
            except BrokenPipeError:
                pass
            finally:
                with lock:
                    busy -= 1

        def _send(self, status: int, value: dict, headers: dict[str, str], drop: bool = False) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            about = {"Content-Type": "application/json", "Content-Length": str(len(data))}
            for name, content in (about | headers).items():
                self.send_header(name, content)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if drop else data)
            if drop:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = ChatServer(f"http://127.0.0.1:{server.server_port}/v1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _completion(model: str, said: Reply) -> dict:
    message = {"role": "assistant", "content": None if said.refusal else said.text, "refusal": said.refusal}
    return {
        "id": "chat",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "finish_reason": said.finish, "message": message}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
