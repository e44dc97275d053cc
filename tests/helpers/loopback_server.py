"""A small server with OpenAI's interface on loopback, which answers, fails, stalls and cuts as it is told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from helpers.command import PATIENCE


@dataclass(frozen=True)
class Reply:
    """What the server does with a request."""

    status: int = 200
    body: Any = None
    """Sent as JSON; None for :func:`completion` of the request."""
    delay: float = 0.0
    """Seconds before it answers."""
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    """Close the connection without an answer."""


def prompt_of(request: dict[str, Any]) -> str:
    """The question that a request asks."""
    found = request["prompt"] if "prompt" in request else request["messages"][-1]["content"]
    return str(found)


def text_of(request: dict[str, Any]) -> str:
    """The answer, a digit that is a function of prompt, seed and temperature."""
    content = [prompt_of(request), request.get("seed"), request["temperature"]]
    return str(hashlib.sha256(json.dumps(content).encode()).digest()[0] % 10)


def completion(request: dict[str, Any], text: str | None = None, finish: str = "stop") -> dict[str, Any]:
    """An answer in OpenAI's form."""
    text = text_of(request) if text is None else text
    told = {"text": text} if "prompt" in request else {"message": {"role": "assistant", "content": text}}
    return {"choices": [{"index": 0, **told, "finish_reason": finish}]}


Act = Callable[[dict[str, Any], int], Reply]
"""What to do with a request that is sent for the n-th time (from 1)."""


class Loopback:
    """A running server; ``requests`` are those it has seen, with their paths and headers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.busy = self.busiest = 0

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body, _ in self.requests]


@contextmanager
def loopback(act: Act = lambda request, time: Reply(), models: Any = ("served",)) -> Iterator[Loopback]:
    """Serve until the block ends; ``models`` are the names it lists, or an HTTP status."""
    lock, seen = threading.Lock(), Counter[str]()
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def send(self, reply: Reply) -> None:
            content = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            listed = models if isinstance(models, int) else 200
            self.send(Reply(listed, {"data": [{"id": name} for name in models]} if listed == 200 else {}))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                found.requests.append((self.path, request, dict(self.headers)))
                key = json.dumps(request, sort_keys=True)
                seen[key] += 1
                count = seen[key]
                found.busy += 1
                found.busiest = max(found.busy, found.busiest)
            reply = act(request, count)
            stopped.wait(reply.delay)
            with lock:
                found.busy -= 1
            if reply.hang_up:
                self.close_connection = True
                return
            body = completion(request) if reply.body is None and reply.status == 200 else reply.body
            self.send(Reply(reply.status, body, headers=reply.headers))

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """A client that has gone is no fault here."""

    with Server(("127.0.0.1", 0), Handler) as server:
        found = Loopback(f"http://127.0.0.1:{server.server_port}/v1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield found
        finally:
            stopped.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port that nothing listens at, below those that systems give to whoever asks for any.

    So none of the many connections that other tests open meanwhile has it when it is used.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(20_000, 32_000)
        with (
            contextlib.suppress(OSError),
            ThreadingHTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler),
        ):
            return port
    msg = "no free port"
    raise OSError(msg)


def wait_for(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Look until ``true()``; AssertionError when the time is over."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
