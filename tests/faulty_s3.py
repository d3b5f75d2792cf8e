"""A real S3-speaking server on the loopback interface, and a proxy before it that fails on purpose."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = ("hang", "refuse", "answer lost", "cut upload", "cut answer")
"""No answer; 500 and nothing done; 500 though it was done; the connection cut in the middle of either body."""

HANG_S = 3.0

Faults = Callable[[str, str], str | None]


def at_random(share: float, *, seed: int, kinds: tuple[str, ...] = KINDS) -> Faults:
    """A fault of some kind for this share of all requests."""
    rng, lock = random.Random(seed), threading.Lock()

    def fault(method: str, path: str) -> str | None:
        with lock:
            return rng.choice(kinds) if rng.random() < share else None

    return fault


@dataclass
class Server:
    """Where it is, and what has happened.

    Attributes:
        endpoint: of the proxy.
        straight: of the server behind it.
        requests: by method.
        injected: faults by kind.
        faults: (method, path) -> a kind, or None for a request that works; may be changed.
    """

    endpoint: str
    straight: str
    requests: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    faults: Faults = lambda method, path: None

    def options(self, *, straight: bool = False) -> dict[str, str]:
        """For `Place`: a client that gives up on an answer after a second."""
        return {
            "endpoint": self.straight if straight else self.endpoint,
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
            "timeout": "1s",
        }


@contextmanager
def serve(bucket: str) -> Generator[Server, None, None]:
    """Serves an empty bucket."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    server = Server(endpoint="", straight=f"http://127.0.0.1:{port}")
    _request(port, "POST", "/moto-api/reset")
    assert _request(port, "PUT", f"/{bucket}") == 200
    proxy = _Proxy(("127.0.0.1", 0), _Handler)
    proxy.upstream, proxy.server = port, server
    server.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
        moto.stop()


def _request(port: int, method: str, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path)
    status = connection.getresponse().status
    connection.close()
    return status


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    upstream: int
    server: Server

    def handle_error(self, request, client_address) -> None:
        """Clients that give up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        books = self.server.server
        books.requests[self.command] += 1
        fault = books.faults(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault in ("cut upload", "cut answer") and self.command not in ("PUT", "POST", "GET"):
            fault = "refuse"
        if fault is not None:
            books.injected[fault] += 1
        if fault == "cut upload":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if fault == "hang":
            time.sleep(HANG_S)
            self._cut()
        elif fault == "refuse":
            self._fail()
        else:
            status, headers, answer = self._forward(body)
            if fault == "answer lost":
                self._fail()
            else:
                self._answer(status, headers, answer, cut=fault == "cut answer")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, response.getheaders(), answer

    def _answer(self, status: int, headers: list[tuple[str, str]], answer: bytes, *, cut: bool) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length", str(len(answer)))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if cut else answer)
        if cut:
            self._cut()

    def _fail(self) -> None:
        self.send_response_only(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
