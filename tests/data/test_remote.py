"""A bucket as a store, on a real S3-speaking server: what holds of a folder holds of it, whatever the network does."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")

from tests.faulty_s3 import at_random, serve

from pocketclip.data import remote
from pocketclip.data.objects import Place, open_store


@pytest.fixture(scope="module")
def bucket():
    with serve("shards") as server:
        yield server


@pytest.fixture
def server(bucket, monkeypatch):
    monkeypatch.setattr(remote, "_DELAYS_S", (0.01,) * 12)
    bucket.faults = lambda method, path: None
    bucket.injected.clear()
    return bucket


@pytest.fixture
def store(server, request):
    return open_store(Place(url=f"s3://shards/{request.node.name}", options=server.options()))


def files(store):
    return {found.name: found.num_bytes for found in store.list()}


def test_what_is_put_is_read_listed_and_deleted(store):
    assert files(store) == {}
    for name in ("b.txt", "a/2", "a/10/x"):
        store.put(name, name.encode())
    assert files(store) == {"b.txt": 5, "a/2": 3, "a/10/x": 6}
    assert [found.name for found in store.list("a")] == ["a/10/x", "a/2"]
    assert list(store.list("nothing")) == []
    assert (store.read("a/2"), store.size("a/2"), store.size("a/3")) == (b"a/2", 3, None)
    with store.fetch("a/10/x") as path:
        assert (path.name, path.read_bytes()) == ("x", b"a/10/x")
    assert not path.exists()
    store.put("a/2", b"other")
    assert store.read("a/2") == b"other"
    store.delete("a/2")
    store.delete("a/2")
    store.delete_folder("a")
    assert files(store) == {"b.txt": 5}
    with pytest.raises(FileNotFoundError, match=r"s3://shards/.*/a/2 is not there"):
        store.read("a/2")
    with pytest.raises(FileNotFoundError, match=r"a/2 is not there"), store.fetch("a/2"):
        pass


def test_a_listing_of_several_pages_is_whole(store):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(f"many/{number:04d}", b"x"), range(1005)))
    assert [found.name for found in store.list("many")] == [f"many/{number:04d}" for number in range(1005)]


@pytest.mark.parametrize("num_bytes", [0, 10, 300_000])
def test_put_once_keeps_the_first(store, num_bytes, monkeypatch):
    # 300,000 bytes are uploaded in parts and copied by the server. (Parts of less than 5 MiB no real S3 takes.)
    monkeypatch.setattr(remote, "_ONE_PUT", 100_000)
    data = os.urandom(num_bytes)

    def put(data):
        with store.scratch() as file:
            file.write(data)
            return store.put_once("x/1", file)

    assert put(data) is True
    assert put(data) is False
    with pytest.raises(FileExistsError, match=r"x/1 is there already and holds other bytes.*choose another"):
        put(b"other" + data)
    assert store.read("x/1") == data
    assert files(store) == {"x/1": num_bytes}


def test_of_many_writers_one_is_new_and_all_succeed(store):
    data = os.urandom(10_000)
    with ThreadPoolExecutor(8) as threads:
        news = list(threads.map(lambda _: store.put_once("x", data), range(24)))
    assert news.count(True) == 1
    assert files(store) == {"x": len(data)}


def test_a_large_file_goes_up_in_parts_and_comes_down_in_ranges(store, server, monkeypatch):
    monkeypatch.setattr(remote, "_PART", 5 << 20)
    monkeypatch.setattr(remote, "_ONE_PUT", 6 << 20)
    data = os.urandom(12 << 20)
    before = server.requests["GET"]
    with store.scratch() as file:
        file.write(data)
        assert store.put_once("large", file) is True
        assert store.put_once("large", file) is False  # compares
    with store.fetch("large") as path:
        assert path.read_bytes() == data
    assert server.requests["GET"] - before == 6
    assert files(store) == {"large": len(data)}


@pytest.mark.parametrize("kind", ["hang", "refuse", "answer lost", "cut upload", "cut answer"])
def test_each_kind_of_failure_passes(store, server, kind):
    data = os.urandom(50_000)
    failed: set[tuple[str, str]] = set()

    def first_time(method, path):
        if (method, path.partition("?")[0]) in failed:
            return None
        failed.add((method, path.partition("?")[0]))
        return kind

    server.faults = first_time
    assert store.put_once("x", data) is (kind != "answer lost")  # then its own bytes are found
    assert store.read("x") == data
    with store.fetch("x") as path:
        assert path.read_bytes() == data
    assert files(store) == {"x": len(data)}
    assert sum(server.injected.values()) >= 2


def test_a_third_of_all_requests_may_fail(store, server, monkeypatch):
    monkeypatch.setattr(remote, "_ONE_PUT", 100_000)
    server.faults = at_random(0.3, seed=1, kinds=("refuse", "answer lost", "cut upload", "cut answer"))
    sizes = {f"file{number}": 40_000 * number for number in range(6)}
    for name, size in sizes.items():
        data = os.urandom(size)
        store.put_once(name, data)
        assert store.read(name) == data
    assert files(store) == sizes
    assert sum(server.injected.values()) > 10


def test_a_server_that_never_works_is_named(store, server, monkeypatch):
    monkeypatch.setattr(remote, "_DELAYS_S", (0.01,))
    server.faults = lambda method, path: "refuse"
    with pytest.raises(
        remote.StoreError, match=r"^s3://shards/.*/x cannot be reached \(.*\): check the network"
    ):
        store.read("x")


def test_a_bucket_that_is_not_there_is_named(server):
    store = open_store(Place(url="s3://nobucket/x", options=server.options()))
    with pytest.raises(OSError, match=r"s3://nobucket/x/y"):
        store.put("y", b"data")
