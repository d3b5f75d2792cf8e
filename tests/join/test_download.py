"""Downloads: limits on all that a stranger's server decides, and failures told apart by whether they may pass."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from tests.join.pictures_server import PictureServer

from pocketclip.join.config import DownloadConfig
from pocketclip.join.download import DownloadError, download

CONFIG = DownloadConfig(timeout_s=0.4, max_bytes=100_000, backoff_s=0.0)
PICTURE = bytes(range(256)) * 20


def failure(url: str, config: DownloadConfig = CONFIG) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(url, config=config)
    return caught.value


@pytest.fixture
def path(server: PictureServer) -> str:
    server.pictures["/a.jpg"] = PICTURE
    return f"{server.url}/a.jpg"


def test_the_bytes_arrive_and_the_server_sees_who_asks(server, path):
    assert download(path, config=replace(CONFIG, user_agent="tests of pocketclip")) == PICTURE
    assert server.agents == {"tests of pocketclip"}
    assert list(server.seen) == ["/a.jpg"]


def test_redirects_are_followed(server, path):
    server.troubles["/a.jpg"] = ["away"]
    server.pictures["/moved/a.jpg"] = PICTURE[::-1]
    assert download(path, config=CONFIG) == PICTURE[::-1]


@pytest.mark.parametrize(
    ("trouble", "reason", "may_pass"),
    [
        ("404", "HTTP 404", False),
        ("410", "HTTP 410", False),
        ("403", "HTTP 403", False),
        ("408", "HTTP 408", True),
        ("429", "HTTP 429", True),
        ("500", "HTTP 500", True),
        ("503", "HTTP 503", True),
        ("cut", "cut off", True),
        ("reset", "the connection failed", True),
        ("slow", "no answer in time", True),
        ("big", "more than 100,000 bytes", False),
        ("endless", "more than 100,000 bytes", False),
        ("robots", "the site forbids it (X-Robots-Tag noai)", False),
        ("loop", "HTTP 302", False),
        ("file", "", False),
    ],
)
def test_troubles(server, path, trouble, reason, may_pass):
    server.troubles["/a.jpg"] = [trouble] * 20
    error = failure(path)
    assert reason in error.reason
    assert error.may_pass == may_pass
    assert "\n" not in error.reason


def test_a_server_may_ask_for_a_pause(server, path):
    server.troubles["/a.jpg"] = ["429"]
    assert failure(path).wait_s == 0.0
    server.troubles["/a.jpg"] = ["500"]
    assert failure(path).wait_s is None


def test_what_is_forbidden_to_others_is_not_forbidden(server, path):
    server.troubles["/a.jpg"] = ["others"]
    assert download(path, config=CONFIG) == PICTURE


def test_a_server_that_drips_is_left_after_a_while():
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not stopped.wait(0.02):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        started = time.monotonic()
        error = failure(f"http://127.0.0.1:{listener.getsockname()[1]}/", replace(CONFIG, timeout_s=0.2))
        assert error.reason == "took longer than 0.6 s"
        assert time.monotonic() - started < 10
    finally:
        stopped.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "data:image/png;base64,AA",
        "http://",
        "http://[",
        "http://\0/",
    ],
)
def test_addresses_that_are_none_are_refused_without_a_connection(url):
    error = failure(url)
    assert "cannot be used" in error.reason
    assert not error.may_pass


def test_nobody_listens():
    error = failure("http://127.0.0.1:1/a.jpg")
    assert "the connection failed" in error.reason
    assert error.may_pass


def test_odd_addresses_are_sent_as_they_must_be(server):
    for asked, sent in (
        ("/two words.jpg", "/two%20words.jpg"),
        ("/ü.jpg?q=ä b", "/%C3%BC.jpg?q=%C3%A4%20b"),
        ("/a%20b.jpg", "/a%20b.jpg"),
        ("/x.jpg#part", "/x.jpg"),
    ):
        server.pictures[sent] = sent.encode()
        assert download(server.url + asked, config=CONFIG) == sent.encode()
    assert download(f"  {server.url}/x.jpg\n", config=CONFIG) == b"/x.jpg"


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0},
        {"attempts": 0},
        {"max_bytes": 0},
        {"timeout_s": 0},
        {"backoff_s": -1},
        {"user_agent": "a\r\nb"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DownloadConfig(**wrong)
