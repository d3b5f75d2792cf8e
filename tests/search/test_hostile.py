"""Hostile requests: nothing is served that is not indexed, nothing is decoded that is too large, no 500."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from tests.search.served import FREE, build, client_of, png, running

from pocketclip.search.server import Limits  # isort: skip  (needs what `served` asks for)

SECRET = b"the secret of the house"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, colour_model: Path) -> Path:
    """An index of 12 pictures, with a secret beside them and one in their folder. Do not change it."""
    folder = tmp_path_factory.mktemp("hostile")
    path = build(folder, colour_model)
    (folder / "secret.txt").write_bytes(SECRET)
    (folder / "pictures" / "notes.txt").write_bytes(SECRET)
    return path


@pytest.fixture(scope="module")
def client(built: Path):
    with client_of(built) as client:
        yield client


def claims(width: int, height: int) -> bytes:
    """A small PNG whose header claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(width * 3 + 1) * min(height, 40))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


OUTSIDE = (
    *("../secret.txt", "..%2fsecret.txt", "%2e%2e%2fsecret.txt", "..%252fsecret.txt", "..%5csecret.txt"),
    *(
        "....//secret.txt",
        "..;/secret.txt",
        "%00",
        "1%00.png",
        "notes.txt",
        "pictures%2fnotes.txt",
        "~",
        "%c0%ae%c0%ae/",
    ),
    *(
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "file:///etc/passwd",
        "C:%5cWindows%5cwin.ini",
        "1/../../../../etc/passwd",
    ),
)


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(
    "place",
    ["/{}", "/page/{}", "/api/items/{}", "/api/items/{}/file", "/api/items/{}/thumbnail", "/api/items/1/{}"],
)
def test_nothing_outside_is_served(client, place: str, outside: str):
    answer = client.get(place.format(outside))
    assert answer.status_code in (400, 404, 405, 422), answer.text
    assert SECRET not in answer.content
    assert b"root:" not in answer.content


@pytest.mark.parametrize(
    "number", ["0", "-1", "13", str(2**63), str(2**64), "9" * 400, "1.5", "1e3", "0x1", "one", "١"]
)
@pytest.mark.parametrize("what", ["", "/file", "/thumbnail"])
def test_only_numbers_of_items_name_items(client, number: str, what: str):
    assert client.get(f"/api/items/{number}{what}").status_code in (404, 422)


@pytest.mark.parametrize(
    "folder", ["../", "/", "/etc", "..\\", "%", "2020' OR 1=1 --", "a\x00b", "\udcff", "/" * 2000]
)
def test_a_folder_is_only_compared(client, folder: str):
    answer = client.get("/api/items", params={"folder": folder.encode("utf-8", "surrogatepass")})
    assert answer.status_code in (200, 422)
    assert all(item["folder"].startswith("202") for item in answer.json().get("items", []))


@pytest.mark.parametrize(
    "text", ["\x00", "%", "'; DROP TABLE items; --", "\u202e", "-" * 900, '"' * 999, "💥" * 400, "a" * 2000]
)
def test_any_text_may_be_searched_for(client, text: str):
    assert client.get("/api/search", params={"q": text}).status_code in (200, 422)
    assert client.get("/api/status").json()["num_items"] == 12


class TestUploads:
    def send(self, client, data: bytes, *, name: str = "x.png", kind: str = "image/png"):
        return client.post("/api/search", files={"picture": (name, data, kind)})

    @pytest.mark.parametrize("size", [(50_000, 50_000), (65_500, 1000), (9000, 9000)])
    def test_a_bomb_is_refused_from_its_header(self, client, size: tuple[int, int]):
        started = time.process_time()
        answer = self.send(client, claims(*size))
        assert answer.status_code == 413
        assert "pixels" in answer.json()["message"]
        assert time.process_time() - started < 2  # decoding 2,500 million pixels takes minutes

    def test_a_bomb_below_the_limit_of_a_smaller_server(self, built: Path):
        with client_of(built, limits=replace(FREE, upload_px=1000)) as client:
            assert self.send(client, png(size=(40, 30))).status_code == 413
            assert self.send(client, png(size=(40, 20))).status_code == 200

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"", 422),
            (b"hello", 415),
            (SECRET * 100, 415),
            (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", 415),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
            (b"GIF89a" + b"\xff" * 50, 422),
            (png()[:60], 422),
            (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 64, 422),
            (b"\x00\x00\x00\x18ftypisom" + b"\x00" * 64, 415),
            (b"\xff\xd8\xff\xe0" + b"\x00" * 64, 415),
            (b"PK\x03\x04" + b"\x00" * 64, 415),
        ],
    )
    def test_what_is_no_picture_is_told_in_a_sentence(self, client, data: bytes, status: int):
        answer = self.send(client, data)
        assert answer.status_code in (status, 415, 422)
        assert len(answer.json()["message"]) > 10

    def test_the_name_and_the_type_are_not_believed(self, client):
        assert self.send(client, png(), name="../../etc/passwd", kind="text/html").status_code == 200

    def test_a_body_that_is_announced_too_large(self, built: Path):
        with client_of(built, limits=replace(FREE, upload_bytes=10_000)) as client:
            answer = self.send(client, b"x" * 20_000)
        assert answer.status_code == 413
        assert "MiB" in answer.json()["message"]

    def test_a_body_that_does_not_end(self, built: Path):
        sent = 0

        def endless():
            nonlocal sent
            yield b'--b\r\nContent-Disposition: form-data; name="picture"; filename="x"\r\n\r\n'
            for _ in range(1000):
                sent += 10_000
                yield b"x" * 10_000

        with client_of(built, limits=replace(FREE, upload_bytes=100_000)) as client:
            kind = {"content-type": "multipart/form-data; boundary=b"}
            answer = client.post("/api/search", content=endless(), headers=kind)
        assert answer.status_code == 413

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"{}", "application/json"),
            (b"q=red", "application/x-www-form-urlencoded"),
            (b"garbage", "multipart/form-data"),
            (b"garbage", "multipart/form-data; boundary="),
            (b"--b\r\n\r\n" * 50, "multipart/form-data; boundary=b"),
            (b"", "multipart/form-data; boundary=b"),
            (
                b'--b\r\nContent-Disposition: form-data; name="picture"\r\n\r\ntext\r\n--b--',
                "multipart/form-data; boundary=b",
            ),
            (b"\xff" * 100, "\xff/\xff".encode("latin-1").decode("latin-1")),
        ],
    )
    def test_other_bodies(self, client, body: bytes, kind: str):
        answer = client.post("/api/search", content=body, headers={"content-type": kind.encode("latin-1")})
        assert 400 <= answer.status_code < 500

    def test_two_pictures_and_an_item(self, client):
        answer = client.post("/api/search", params={"like": 1}, files={"picture": ("x", png(), "image/png")})
        assert answer.status_code == 422


class TestOtherSites:
    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8765",
            "",
            "[",
            "a b",
            "192.168.1.9",
        ],
    )
    def test_another_name_of_this_machine_is_refused(self, client, host: str):
        assert client.get("/api/status", headers={"host": host}).status_code == 421

    @pytest.mark.parametrize(
        "host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765", "LOCALHOST", "localhost."]
    )
    def test_its_own_are_not(self, client, host: str):
        assert client.get("/api/status", headers={"host": host}).status_code == 200

    def test_addresses_and_given_names_where_a_token_is_asked(self, built: Path):
        with client_of(built, host="0.0.0.0", token="correct-horse", names=("photos.home",)) as client:
            ask = lambda host: client.get("/health", headers={"host": host}).status_code  # noqa: E731
            assert [
                ask(host) for host in ("192.168.1.9:8765", "[2001:db8::1]", "photos.home", "evil.example")
            ] == [
                200,
                200,
                200,
                421,
            ]

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://localhost:3000"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
            {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        ],
    )
    def test_its_pages_may_not_ask(self, client, headers: dict[str, str]):
        for path in ("/", "/api/items", "/api/items/1/thumbnail", "/api/items/1/file"):
            assert client.get(path, headers=headers).status_code == 403
        assert (
            client.post(
                "/api/search", headers=headers, files={"picture": ("x", png(), "image/png")}
            ).status_code
            == 403
        )

    def test_a_link_to_the_page_may_be_followed(self, client):
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/", headers=headers).status_code == 200
        assert client.get("/api/items/1/file", headers=headers).status_code == 403

    def test_nothing_is_shared_across_origins(self, client):
        asked = {"origin": "http://127.0.0.1:8765", "access-control-request-method": "GET"}
        for answer in (client.options("/api/items", headers=asked), client.get("/api/items")):
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"

    @pytest.mark.parametrize(
        "path", ["/", "/nothing", "/api/items", "/api/items/1/file", "/api/search", "/metrics"]
    )
    def test_every_answer_is_guarded(self, client, path: str):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


class TestHeads:
    def test_many_headers(self, client):
        assert client.get("/api/status", headers={f"x-{i}": "y" for i in range(200)}).status_code == 431

    def test_a_long_address(self, client):
        assert client.get("/api/search", params={"q": "a" * 9000}).status_code == 414

    @pytest.mark.parametrize("length", ["-1", "x", "1" * 50, "99999999999"])
    def test_a_length_that_is_none(self, client, length: str):
        answer = client.post("/api/search", content=b"", headers={"content-length": length})
        assert 400 <= answer.status_code < 500

    @pytest.mark.parametrize("ask", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"])
    def test_other_methods(self, client, ask: str):
        assert client.request(ask, "/api/items/1").status_code == 405

    def test_a_cookie_that_is_none(self, built: Path):
        with client_of(built, token="correct-horse") as client:
            for cookie in ("pocketclip-8765", "=", "a=\x01", "pocketclip-8765=" + "x" * 4000, '"'):
                assert client.get("/api/status", headers={"cookie": cookie.encode()}).status_code == 401


def talk(address: str, sent: bytes, *, timeout: float = 20) -> bytes:
    """What a server answers to bytes, till it hangs up."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=timeout) as connection:
        connection.sendall(sent)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:  # it hung up on what was still being sent
            pass
        return answer


@pytest.mark.slow
def test_a_running_server_on_the_wire(built: Path):
    """What a test client would tidy up before it is sent."""
    with running(built) as address:
        host = urlsplit(address).netloc.encode()
        for path in (
            b"/../secret.txt",
            b"/page/..%2f..%2fsecret.txt",
            b"//etc/passwd",
            b"/page/\xff\xfe",
            b"/%00",
        ):
            answer = talk(
                address, b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
            )
            assert answer[9:12] in (b"400", b"404"), answer[:80]
            assert SECRET not in answer
        assert talk(address, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")[9:12] in (
            b"400",
            b"421",
        )  # no Host
        assert talk(address, b"\x16\x03\x01\x02\x00\x01")[9:12] == b"400"
        flood = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(100))
        assert talk(address, b"GET / HTTP/1.1\r\n" + flood)[9:12] == b"400"
        smuggled = b"POST /api/search HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (
            talk(address, smuggled % host + b"0\r\n\r\nGET /x HTTP/1.1\r\nConnection: close\r\n\r\n")[9:10]
            == b"4"
        )
        chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
        head = (
            b"POST /api/search HTTP/1.1\r\nHost: %s\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            % host
        )
        answer = talk(address, head + b"Content-Length: 99999999999\r\n\r\n")
        assert answer[9:12] == b"413"
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
            connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            sent = 0
            try:
                while sent < 2**28:  # the server ends it long before
                    connection.sendall(chunk)
                    sent += len(chunk)
            except OSError:
                pass
        assert sent < 2**27
        started = time.monotonic()
        assert talk(address, b"GET / HTTP/1.1\r\nHost: ", timeout=40) == b""  # a head that never ends
        assert time.monotonic() - started < 30


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_the_interface_fuzzed(built: Path, mode: str):
    """Requests made from the interface's own description, right and wrong ones: no 5xx, and answers as described."""
    schemathesis = pytest.importorskip("schemathesis", reason="fuzzing needs schemathesis")
    app = client_of(built, limits=replace(FREE, answer_s=20)).app
    own = {"host": "127.0.0.1:8765"}
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=own)
    asked: dict[str, int] = {}

    def ask(case) -> None:
        answer = case.call(headers=own)
        assert answer.status_code < 500, case.as_curl_command()
        if answer.status_code < 300:
            case.operation.validate_response(answer)
        elif answer.status_code != 404:
            assert set(answer.json()) == {"status", "message"}
        asked[case.operation.path] = asked.get(case.operation.path, 0) + 1

    for found in schema.get_all_operations():
        operation = found.ok()
        takes_nothing = not operation.path_parameters and not operation.query and not operation.body
        if operation.path == "/api/events" or (takes_nothing and mode == "NEGATIVE"):
            continue  # never ends; cannot be asked wrongly
        strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode])
        fuzzed = settings(
            max_examples=15,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(case=strategy)(lambda case: ask(case)))
        fuzzed()
    assert {"/api/search", "/api/items", "/api/items/{number}", "/api/items/{number}/file"} <= set(asked)


def test_a_picture_that_is_large_but_allowed(client):
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 3000), "blue").save(buffer, "JPEG")
    answer = client.post(
        "/api/search", params={"k": 1}, files={"picture": ("x.jpg", buffer.getvalue(), "image/jpeg")}
    )
    assert answer.json()["hits"][0]["name"].startswith("blue")


def test_limits_must_be_limits():
    with pytest.raises(ValueError, match="upload_bytes"):
        Limits(upload_bytes=0)
