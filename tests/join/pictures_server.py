"""A picture server on loopback that fails in every way a stranger's does, as often as it is told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PictureServer:
    """Serves `pictures[path]`; `troubles[path]` is a list of what goes wrong at each request before it goes well.

    Attributes:
        url: of the server.
        seen: requests by path.
        agents: User-Agent headers seen.
        most_at_once: requests under way at the same time, at most.
        delay_s: before every answer.
    """

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}
        self.troubles: dict[str, list[str]] = {}
        self.seen: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.most_at_once = self.at_once = 0
        self.delay_s = 0.0
        self.released = threading.Event()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> PictureServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, change: int) -> None:
        """One request more, or less, is under way."""
        with self._lock:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)

    def next_trouble(self, path: str) -> str:
        """What goes wrong at this request, or nothing."""
        with self._lock:
            self.seen[path] += 1
            left = self.troubles.get(path, [])
            return left.pop(0) if left else ""


class _Handler(BaseHTTPRequestHandler):
    owner: PictureServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.owner.count(1)
        self.owner.agents.add(self.headers["User-Agent"])
        time.sleep(self.owner.delay_s)
        try:
            with suppress(OSError):  # the client had enough
                self._answer(self.owner.next_trouble(self.path))
        finally:
            self.owner.count(-1)

    def _answer(self, trouble: str) -> None:
        data = self.owner.pictures.get(self.path)
        headers = {}
        match trouble:
            case "":
                pass
            case "cut":
                self._send(200, (data or b"")[:100], {"Content-Length": "100000"})
                return
            case "reset":
                self.connection.close()
                return
            case "slow":
                self.owner.released.wait(20)
            case "big":
                data = bytes(200_000)
            case "endless":
                self._send(200, b"", {})
                while not self.owner.released.is_set():
                    self.wfile.write(bytes(1000))
                return
            case "robots":
                headers = {"X-Robots-Tag": "noai"}
            case "others":
                headers = {"X-Robots-Tag": "googlebot: noindex"}
            case "loop":
                self._send(302, b"", {"Location": self.path})
                return
            case "away":
                self._send(302, b"", {"Location": "/moved" + self.path})
                return
            case "file":
                self._send(302, b"", {"Location": "file:///etc/hostname"})
                return
            case "empty":
                data = b""
            case "text":
                data = b"<html>not found, but with status 200</html>"
            case "429":
                self._send(429, b"", {"Retry-After": "0"})
                return
            case status:
                self._send(int(status), b"sorry", {})
                return
        if data is None:
            self._send(404, b"", {})
        else:
            self._send(200, data, {"Content-Length": str(len(data)), **headers})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True
