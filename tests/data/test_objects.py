"""A folder as a store: whole files or none, the first of two writers wins, other bytes are never replaced."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from pocketclip.data.objects import PARTIAL, FolderStore, Place, open_store
from pocketclip.data.publish import PublishError


@pytest.fixture
def store(tmp_path):
    return open_store(Place(url=str(tmp_path / "store")))


def files(store):
    return {found.name: found.num_bytes for found in store.list()}


def test_what_is_put_is_read_listed_and_deleted(store):
    assert files(store) == {}
    for name in ("b.txt", "a/2", "a/10/x"):
        store.put(name, name.encode())
    assert files(store) == {"b.txt": 5, "a/2": 3, "a/10/x": 6}
    assert [found.name for found in store.list("a")] == ["a/2", "a/10/x"]
    assert list(store.list("nothing")) == []
    assert store.read("a/2") == b"a/2"
    assert (store.size("a/2"), store.size("a/3"), store.size("a")) == (3, None, None)
    with store.fetch("a/2") as path:
        assert path.read_bytes() == b"a/2"
    store.put("a/2", b"other")
    assert store.read("a/2") == b"other"
    store.delete("a/2")
    store.delete("a/2")
    store.delete_folder("a")
    assert files(store) == {"b.txt": 5}
    with pytest.raises(FileNotFoundError):
        store.read("a/2")


@pytest.mark.parametrize("as_file", [False, True])
def test_put_once_keeps_the_first(store, as_file):
    def put(data):
        if not as_file:
            return store.put_once("x/1", data)
        with store.scratch() as file:
            file.write(data)
            return store.put_once("x/1", file)

    assert put(b"first") is True
    assert put(b"first") is False
    for other in (b"other", b"first and more"):
        with pytest.raises(
            FileExistsError, match=r"x/1 is there already and holds other bytes.*choose another"
        ):
            put(other)
    assert files(store) == {"x/1": 5}


def test_of_many_writers_one_is_new_and_all_succeed(store):
    data = os.urandom(200_000)
    with ThreadPoolExecutor(8) as threads:
        news = list(threads.map(lambda _: store.put_once("x", data), range(40)))
    assert news.count(True) == 1
    assert store.read("x") == data
    assert files(store) == {"x": len(data)}


def test_nothing_is_visible_before_it_is_whole_and_nothing_stays_of_what_fails(store):
    def fail():
        with store.scratch() as file:
            file.write(b"half")
            assert [name for name in files(store) if not name.startswith(PARTIAL)] == []
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert files(store) == {}


def test_a_file_system_without_links_is_served_too(store, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    assert store.put_once("x", b"data") is True
    assert store.put_once("x", b"data") is False
    with pytest.raises(FileExistsError):
        store.put_once("x", b"date")
    store.put("y", b"data")
    assert files(store) == {"x": 4, "y": 4}


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(Place(url=str(tmp_path / "file" / "out")))
    with pytest.raises(PublishError, match=r"cannot write .*out: .*choose another output"):
        store.put("x", b"data")
    assert store.size("x") is None


def test_other_kinds_of_address_are_refused():
    pytest.importorskip("obstore")
    with pytest.raises(ValueError, match=r"ftp://x: stores are folders, s3://, gs://, az://; ftp:// is none"):
        open_store(Place(url="ftp://x"))
    with pytest.raises(ValueError, match=r"s3://bucket cannot be opened: .*colour"):
        open_store(Place(url="s3://bucket", options={"colour": "red"}))
