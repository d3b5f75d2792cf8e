"""The server: answers as the interface says, its limits, its tokens, its events."""

from __future__ import annotations

import io
import json
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image
from tests.search.served import build, client_of, png, running

from pocketclip.search import SearchIndex, index

from pocketclip.search.server import Limits, ServerConfig, made_up_token  # isort: skip  (needs what `served` asks for)
from pocketclip.search.server.bulletin import Bulletin
from pocketclip.search.server.limits import Buckets
from pocketclip.search.server.limits import client_of as whom
from pocketclip.search.server.watching import Watcher

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, colour_model: Path) -> Path:
    """An index of 12 pictures. Do not change it."""
    return build(tmp_path_factory.mktemp("served"), colour_model)


@pytest.fixture(scope="module")
def client(built: Path):
    with client_of(built) as client:
        yield client


def names(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["name"].split()[0] for hit in answer.json()["hits"]]


class TestSearch:
    @pytest.mark.parametrize("colour", ["red", "green", "blue"])
    def test_words_find_what_they_mean(self, client, colour: str):
        assert set(names(client.get("/api/search", params={"q": f"a {colour} thing", "k": 3}))) == {colour}

    def test_is_what_the_index_says(self, client, built: Path):
        said = client.get("/api/search", params={"q": "green", "k": 12}).json()
        found = SearchIndex(built).search("green")
        assert [hit["id"] for hit in said["hits"]] == [hit.id for hit in found.hits]
        assert [hit["score"] for hit in said["hits"]] == pytest.approx(
            [hit.score for hit in found.hits], abs=1e-5
        )
        assert said["num_candidates"] == 12

    def test_a_picture_finds_its_like(self, client):
        answer = client.post(
            "/api/search", params={"k": 3}, files={"picture": ("x.png", png("blue"), "image/png")}
        )
        assert set(names(answer)) == {"blue"}

    def test_words_and_a_picture_are_weighed(self, client):
        picture = {"picture": ("x.png", png("blue"), "image/png")}
        ask = lambda weight: names(  # noqa: E731
            client.post("/api/search", params={"q": "red", "k": 1, "text_weight": weight}, files=picture)
        )
        assert (ask(1), ask(0)) == (["red"], ["blue"])

    def test_more_like_an_item(self, client):
        item = client.get("/api/search", params={"q": "white", "k": 1}).json()["hits"][0]
        answer = client.get("/api/search", params={"like": item["id"], "k": 2})
        assert set(names(answer)) == {"white"}
        assert item["id"] not in [hit["id"] for hit in answer.json()["hits"]]

    def test_pages_follow_each_other(self, client):
        whole = client.get("/api/search", params={"q": "red", "k": 10}).json()["hits"]
        parts = [
            client.get("/api/search", params={"q": "red", "k": 5, "offset": offset}).json()["hits"]
            for offset in (0, 5)
        ]
        assert whole == parts[0] + parts[1]

    def test_conditions(self, client):
        answer = client.get("/api/search", params={"q": "red", "folder": "2021"}).json()
        assert {hit["folder"] for hit in answer["hits"]} == {"2021"}
        assert answer["num_candidates"] == 4

    @pytest.mark.parametrize(
        ("asked", "named"),
        [
            ({}, "empty"),
            ({"q": "red", "min_score": "2"}, "min_score"),
            ({"q": "red", "taken_from": "2024", "taken_to": "2023"}, "swap"),
            ({"q": "red", "near": "91,0,5"}, "latitude"),
            ({"q": "red", "crop": "0,0,1,1"}, "crop"),
            ({"q": "red", "k": "0"}, "k"),
            ({"q": "red", "colour": "x"}, "colour"),
            ({"q": "red", "taken_from": "May"}, "taken_from"),
        ],
    )
    def test_a_question_without_sense_is_told_in_a_sentence(self, client, asked: dict, named: str):
        answer = client.get("/api/search", params=asked)
        assert answer.status_code == 422
        assert answer.json()["status"] == 422
        assert named in answer.json()["message"]

    def test_an_item_that_is_not_there(self, client):
        assert client.get("/api/search", params={"like": 10**15}).status_code == 404


class TestItems:
    def test_come_in_pages_without_gaps(self, client):
        seen, after = [], None
        while page := client.get(
            "/api/items", params={"limit": 5} | ({"after": after} if after else {})
        ).json()["items"]:
            seen += [item["id"] for item in page]
            after = seen[-1]
        assert len(seen) == len(set(seen)) == 12

    @pytest.mark.parametrize("order", ["newest", "added"])
    def test_with_conditions_too(self, client, order: str):
        first = client.get("/api/items", params={"folder": "2020", "limit": 3, "order": order}).json()
        rest = client.get(
            "/api/items", params={"folder": "2020", "after": first["items"][-1]["id"], "order": order}
        )
        assert first["total"] == 4
        assert len({item["id"] for item in first["items"] + rest.json()["items"]}) == 4

    def test_all_that_is_known(self, client, built: Path):
        item = client.get("/api/items/1").json()
        assert Path(item["places"][0]).is_file()
        assert (item["media_type"], item["is_converted"]) == ("image/png", False)
        with Image.open(item["places"][0]) as image:
            assert (item["width"], item["height"]) == image.size

    def test_the_thumbnail_is_kept_for_good(self, client):
        item = client.get("/api/items/2").json()
        answer = client.get(item["thumbnail"])
        assert answer.headers["content-type"] == "image/jpeg"
        assert "immutable" in answer.headers["cache-control"]
        assert Image.open(io.BytesIO(answer.content)).format == "JPEG"

    def test_the_original(self, client):
        item = client.get("/api/items/3").json()
        shown, saved = client.get(item["file"]), client.get("/api/items/3/file?download=true")
        assert shown.content == saved.content == Path(item["places"][0]).read_bytes()
        assert shown.headers["content-type"] == "image/png"
        assert "sandbox" in shown.headers["content-security-policy"]
        assert saved.headers["content-disposition"].startswith("attachment")

    def test_filters_and_status(self, client):
        filters = client.get("/api/filters").json()
        assert filters["folders"] == ["2020", "2021", "2022"]
        assert filters["kinds"] == ["picture"]
        status = client.get("/api/status").json()
        assert (status["num_items"], status["is_indexing"]) == (12, False)
        assert client.get("/api/skipped").json() == {"skipped": [], "total": 0}

    @pytest.mark.parametrize("overview", ["albums", "duplicates"])
    def test_overviews_are_groups(self, client, overview: str):
        groups = client.get(f"/api/{overview}").json()["groups"]
        ids = [item["id"] for group in groups for item in group["items"]]
        assert len(ids) == len(set(ids))
        assert client.get(f"/api/{overview}").json()["groups"] == groups

    def test_outliers(self, client):
        assert "items" in client.get("/api/outliers").json()


class TestOtherFiles:
    """What browsers do not show is made into a JPEG; what has changed since is not served."""

    @pytest.fixture
    def mixed(self, tmp_path: Path, colour_model: Path):
        folder = tmp_path / "pictures"
        folder.mkdir()
        Image.new("RGB", (60, 40), "green").save(folder / "g.tiff")
        Image.new("RGB", (60, 40), "blue").save(folder / "lies.jpg", "TIFF")
        (folder / "r.png").write_bytes(png("red"))
        index([folder], tmp_path / "mixed.index", model=colour_model)
        with client_of(tmp_path / "mixed.index") as client:
            ids = {item["name"]: item["id"] for item in client.get("/api/items").json()["items"]}
            yield client, ids, folder

    @pytest.mark.parametrize("name", ["g.tiff", "lies.jpg"])
    def test_a_tiff_becomes_a_jpeg(self, mixed, name: str):
        client, ids, folder = mixed
        answer = client.get(f"/api/items/{ids[name]}/file")
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (60, 40)
        saved = client.get(f"/api/items/{ids[name]}/file?download=true")
        assert saved.content == (folder / name).read_bytes()

    @pytest.mark.parametrize("download", ["false", "true"])
    def test_a_file_that_was_replaced_is_not_served(self, mixed, tmp_path: Path, download: str):
        client, ids, folder = mixed
        secret = tmp_path / "secret"
        secret.write_bytes(png("white", size=(41, 30)))
        (folder / "r.png").unlink()
        (folder / "r.png").symlink_to(secret)
        answer = client.get(f"/api/items/{ids['r.png']}/file", params={"download": download})
        assert answer.status_code == 410
        assert "changed" in answer.json()["message"]

    def test_a_file_that_was_touched_is(self, mixed):
        client, ids, folder = mixed
        shutil.copystat(folder, folder / "r.png")
        answer = client.get(f"/api/items/{ids['r.png']}/file?download=true")
        assert answer.content == (folder / "r.png").read_bytes()

    def test_a_file_that_is_gone(self, mixed):
        client, ids, folder = mixed
        (folder / "r.png").unlink()
        assert client.get(f"/api/items/{ids['r.png']}/file").status_code == 410
        assert client.get(f"/api/items/{ids['r.png']}/thumbnail").status_code == 200


def test_videos_are_served_in_parts(tmp_path: Path, colour_model: Path):
    av = pytest.importorskip("av")
    folder = tmp_path / "videos"
    folder.mkdir()
    with av.open(str(folder / "clip.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            image = Image.new("RGB", (64, 48), "red" if number < 10 else "blue")
            out.mux(stream.encode(av.VideoFrame.from_image(image)))
        out.mux(stream.encode())
    index([folder], tmp_path / "v.index", model=colour_model)
    data = (folder / "clip.mp4").read_bytes()
    with client_of(tmp_path / "v.index") as client:
        hit = client.get("/api/search", params={"q": "blue", "k": 1}).json()["hits"][0]
        assert hit["kind"] == "video"
        assert hit["at_s"] >= 1.5
        address = client.get(f"/api/items/{hit['id']}").json()["file"]
        part = client.get(address, headers={"range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, data[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
        assert part.headers["content-type"] == "video/mp4"
        assert client.get(address, headers={"range": f"bytes={len(data)}-"}).status_code == 416
        assert client.get(address).content == data


class TestDescription:
    def test_every_route_is_described(self, client):
        described = client.get("/api/openapi.json").json()
        for path, methods in described["paths"].items():
            for route in methods.values():
                assert route["summary"], path
                assert "4XX" in route["responses"], path
                assert all(
                    "description" in one or "description" in one["schema"]
                    for one in route.get("parameters", [])
                )
        assert "HTTPValidationError" not in json.dumps(described)

    def test_nothing_comes_from_elsewhere(self, client):
        """No font, script or picture of another server."""
        for name in ("/", "/api"):
            assert "//" not in client.get(name).text.replace("<!doctype", "")
        for path in (Path(__file__).parents[2] / "src/pocketclip/search/page").iterdir():
            text = path.read_text().replace("http://www.w3.org/", "")
            assert "http://" not in text, path.name
            assert "https://" not in text, path.name

    def test_the_page_and_its_files(self, client):
        answer = client.get("/")
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        for name in ("main.js", "style.css", "icon.svg"):
            assert client.get(f"/page/{name}").status_code == 200
        tag = client.get("/page/main.js").headers["etag"]
        assert client.get("/page/main.js", headers={"if-none-match": tag}).status_code == 304

    def test_metrics_count(self, client):
        client.get("/api/items/1/thumbnail")
        client.request("BREW", "/api/status")
        text = client.get("/metrics").text
        assert 'route="/api/items/{number}/thumbnail",status="200"' in text
        assert "pocketclip_index_items 12.0" in text
        assert 'method="other"' in text
        assert "BREW" not in text

    def test_health(self, client):
        assert client.get("/health").json() == {"status": "ok"}


class TestToken:
    @pytest.fixture
    def locked(self, built: Path):
        with client_of(built, token=TOKEN) as client:
            yield client

    @pytest.mark.parametrize(
        "path", ["/api/items", "/api/items/1/file", "/metrics", "/api/openapi.json", "/page/main.js"]
    )
    def test_is_needed(self, locked, path: str):
        assert locked.get(path).status_code == 401
        assert locked.get(path, headers={"authorization": "Bearer wrong-token"}).status_code == 401
        assert locked.get(path, headers={"cookie": "pocketclip-8765=wrong-token"}).status_code == 401
        assert locked.get(f"{path}?token={TOKEN}").status_code == 401
        assert locked.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200

    def test_is_given_once_in_the_address(self, locked):
        given = locked.get(f"/?token={TOKEN}")
        cookie = given.headers["set-cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/"))
        assert "src=" not in given.text
        assert locked.get("/").status_code == 200
        assert locked.get("/api/items").status_code == 200

    def test_a_wrong_one_sets_nothing_and_is_told_to_people(self, locked):
        answer = locked.get("/?token=wrong-token", headers={"accept": "text/html"})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert "pocketclip serve" in answer.text

    def test_health_needs_none(self, locked):
        assert locked.get("/health").status_code == 200

    def test_guessing_is_slow(self, built: Path):
        with client_of(built, token=TOKEN, limits=Limits(credits=300, credits_per_s=0.001)) as client:
            tried = [
                client.get("/api/status", headers={"authorization": f"Bearer wrong-{i:04d}"}).status_code
                for i in range(6)
            ]
        assert tried == [401, 401, 401, 429, 429, 429]


class TestConfig:
    def test_others_need_a_token(self, built: Path):
        with pytest.raises(ValueError, match="give a token"):
            ServerConfig(index=built, host="0.0.0.0")
        ServerConfig(index=built, host="::1")

    @pytest.mark.parametrize("token", ["short", "with spaces in it", "ünïcödetoken", "semi;colon;cookie"])
    def test_a_token_that_cannot_be_used(self, built: Path, token: str):
        with pytest.raises(ValueError, match="token"):
            ServerConfig(index=built, token=token)

    def test_a_made_up_one_can_and_differs(self, built: Path):
        assert ServerConfig(index=built, token=made_up_token()).token != made_up_token()

    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("127.0.0.1", f"http://127.0.0.1:80/?token={TOKEN}"),
            ("0.0.0.0", f"http://127.0.0.1:80/?token={TOKEN}"),
            ("::", f"http://[::1]:80/?token={TOKEN}"),
        ],
    )
    def test_the_address_can_be_opened(self, built: Path, host: str, address: str):
        assert ServerConfig(index=built, host=host, port=80, token=TOKEN).address() == address

    def test_a_missing_index_names_the_command(self, tmp_path: Path):
        with pytest.raises(FileNotFoundError, match="pocketclip index"):
            client_of(tmp_path / "none")


class TestRate:
    def test_a_client_that_asks_too_much_waits(self, built: Path):
        with client_of(built, limits=Limits(credits=25, credits_per_s=0.5)) as client:
            answers = [client.get("/api/search", params={"q": "red"}) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert 8 <= int(answers[-1].headers["retry-after"]) <= 10
            assert "wait" in answers[-1].json()["message"]

    def test_credits_come_back(self):
        now = [0.0]
        buckets = Buckets(most=10, per_s=2, clock=lambda: now[0])
        assert buckets.take("a", 12) == 0
        assert buckets.take("a", 1) == pytest.approx(1)
        assert buckets.take("b", 1) == 0
        now[0] = 1.1
        assert buckets.take("a", 1) == 0

    def test_a_household_is_one_client(self):
        address = lambda host: whom({"client": (host, 1)})  # noqa: E731
        assert address("2001:db8:1:2:3::4") == address("2001:db8:1:2:ffff::1")
        assert address("2001:db8:1:3::1") != address("2001:db8:1:2::1")
        assert address("10.0.0.1") != address("10.0.0.2")


class TestChanges:
    def test_the_bulletin_tells_them(self, built: Path):
        now = [0.0]
        reader = SearchIndex(built).reader
        generation, items = [5], [10]
        fake = type("Reader", (), {"generation": lambda _: generation[0], "__len__": lambda _: items[0]})()
        fake.skipped, fake.page = reader.skipped, reader.page
        bulletin = Bulletin(fake, name="x", streams=1, clock=lambda: now[0])
        assert not bulletin.look().is_indexing
        now[0], generation[0], items[0] = 2.0, 6, 50
        status = bulletin.look()
        assert (status.is_indexing, status.items_per_s, status.num_items) == (True, 20.0, 50)
        now[0] = 9.0
        assert not bulletin.look().is_indexing

    @pytest.mark.slow
    def test_events_follow_what_is_indexed_beside_the_server(self, tmp_path: Path, colour_model: Path):
        """`serve --watch`: a picture that comes into the folder is told, found and shown."""
        import httpx

        path = build(tmp_path, colour_model)
        with running(path, "--watch") as address, httpx.Client(base_url=address, timeout=60) as client:
            with client.stream("GET", "/api/events") as stream:
                lines = stream.iter_lines()
                first = next(json.loads(line[6:]) for line in lines if line.startswith("data: "))
                assert (first["num_items"], first["is_watching"]) == (12, True)
                time.sleep(2)  # the watcher's first pass
                (tmp_path / "pictures" / "new.png").write_bytes(png("blue", size=(33, 33)))
                later = next(
                    s
                    for line in lines
                    if line.startswith("data: ") and (s := json.loads(line[6:]))["num_items"] == 13
                )
            assert later["generation"] > first["generation"]
            assert client.get(f"/api/items/{later['newest_id']}").json()["name"] == "new.png"

    def test_a_watcher_that_fails_says_why(self):
        import sys

        watcher = Watcher(
            Path("x"), command=(sys.executable, "-c", "import sys; sys.exit('error: no such model')")
        )
        watcher.start()
        deadline = time.monotonic() + 30
        while watcher.problem is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        watcher.stop()
        assert watcher.problem == "no such model"

    def test_new_pictures_are_found_by_a_server_that_runs(self, tmp_path: Path, colour_model: Path):
        path = build(tmp_path, colour_model, num=8)
        with client_of(path) as client:
            before = client.get("/api/search", params={"q": "blue", "k": 50}).json()
            (tmp_path / "pictures" / "sky.png").write_bytes(png("blue", size=(31, 37)))
            index([tmp_path / "pictures"], path)
            after = client.get("/api/search", params={"q": "blue", "k": 50}).json()
            assert len(after["hits"]) == len(before["hits"]) + 1
            assert after["generation"] > before["generation"]


@pytest.mark.slow
def test_as_a_command(built: Path):
    import httpx

    with running(built, "--token", TOKEN) as address:
        assert address.endswith(f"/?token={TOKEN}")
        base = address.partition("/?")[0]
        with httpx.Client(base_url=base) as client:
            assert client.get("/api/status").status_code == 401
            client.get(f"/?token={TOKEN}")
            assert client.get("/api/status").json()["num_items"] == 12


def test_without_the_extra(cli, built: Path, monkeypatch: pytest.MonkeyPatch):
    from pocketclip.cli import extras

    monkeypatch.setattr(extras, "_is_there", lambda module: module != "uvicorn")
    ran = cli("serve", built)
    assert ran.code == 1
    assert "pip install 'pocketclip[serve]'" in ran.sentence()


def test_a_port_that_is_taken(cli, built: Path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = cli("serve", built, "--port", str(taken.getsockname()[1]))
    assert ran.code == 1
    assert "--port" in ran.sentence()
