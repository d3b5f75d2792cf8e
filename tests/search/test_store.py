"""Reading an index: one state at a time, from any thread, and refusals that name the remedy."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from pocketclip.search import Filter
from pocketclip.search.build import Indexer, index
from pocketclip.search.schema import default_index, load_path, printable, store_path
from pocketclip.search.store import IndexReader, ItemGoneError
from pocketclip.search.writer import open_writer


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(25):
        path = folder / f"year{number % 3}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20 + number, 20), (10 * number, 5, 90)).save(path)
        os.utime(path, (1_600_000_000 + 1000 * (number % 7), 1_600_000_000 + 1000 * (number % 7)))
    return folder


@pytest.fixture(scope="module")
def built(photos: Path, tmp_path_factory: pytest.TempPathFactory, colour_model: Path) -> Path:
    out = tmp_path_factory.mktemp("built") / "x.index"
    index([photos], out, model=colour_model)
    return out


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "x.index"))


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path / "pictures.sqlite", isolation_level=None)) as database:
        database.execute(statement)


@pytest.mark.parametrize("name", ["a/b.png", "caf\xe9.png", os.fsdecode(b"caf\xe9\xff.png")])
def test_a_path_comes_back(name: str):
    stored = store_path(Path(name))
    assert load_path(stored) == Path(name)
    assert isinstance(stored, str) == name.isprintable()
    assert printable(Path(name)).encode().decode() == printable(Path(name))


@pytest.mark.parametrize("order", ["newest", "added"])
def test_pages_join_to_the_whole(built: Path, order):
    reader = IndexReader(built)
    whole = reader.page(limit=1000, order=order)
    assert len(whole) == len(reader) == 25
    pages, after = [], 0
    while page := reader.page(after=after, limit=4, order=order):
        pages += page
        after = page[-1].id
    assert pages == whole
    keys = [(picture.modified if order == "newest" else "", picture.id) for picture in whole]
    assert keys == sorted(keys, reverse=True)
    with pytest.raises(ItemGoneError):
        reader.page(after=999)
    reader.close()


def test_items_come_in_the_order_asked(built: Path, photos: Path):
    reader = IndexReader(built)
    ids = [7, 3, 3, 25]
    assert [picture.id for picture in reader.items(ids)] == ids
    assert sorted(reader.find([1, 2, 999])) == [1, 2]
    with pytest.raises(ItemGoneError, match="no item 999"):
        reader.items([1, 999])
    many = list(range(1, 26)) * 80  # more than SQLite takes at once
    assert [picture.id for picture in reader.items(many)] == many
    (picture,) = reader.items([7])
    assert reader.places(7) == [picture.file]
    assert reader.file(7) == (picture.file, None)
    assert reader.data(7) == picture.file.read_bytes()
    assert reader.folders() == ["year0", "year1", "year2"]
    for ask in (reader.thumbnail, reader.file, reader.data):
        with pytest.raises(ItemGoneError):
            ask(999)
    assert reader.places(999) == []
    reader.close()


def test_filters_and_vectors_agree(built: Path):
    reader = IndexReader(built)
    ids = reader.select(Filter(folder="year1"))
    assert len(ids) == 8
    query = reader.vectors.rows([int(ids[0])])[0]
    found, _ = reader.vectors.search(query, 25, among=ids)
    assert sorted(found.tolist()) == ids.tolist()
    assert reader.select(Filter()).tolist() == reader.vectors.ids().tolist()
    reader.close()


def test_tags_are_replaced_whole(copied: Path):
    reader = IndexReader(copied)
    with open_writer(copied, reader.meta) as writer:
        writer.set_tags([(1, "red", 0.5), (2, "red", 0.25), (1, "sky", 0.75), (999, "gone", 1.0)])
    assert reader.tags([1, 2, 3]) == {1: [("sky", 0.75), ("red", 0.5)], 2: [("red", 0.25)], 3: []}
    assert reader.tag_counts() == [("red", 2), ("sky", 1)]
    assert reader.select(Filter(tags=("red",))).tolist() == [1, 2]
    with open_writer(copied, reader.meta) as writer:
        writer.set_tags([(3, "sea", 0.5)])
    assert reader.tag_counts() == [("sea", 1)]
    reader.close()


def test_threads_may_ask_while_it_is_indexed(copied: Path, photos: Path, tmp_path: Path, colour_model: Path):
    reader = IndexReader(copied)
    wrong: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        try:
            while not stop.is_set():
                ids, _ = reader.vectors.search(reader.vectors.rows([1])[0], 10)
                assert len(reader.find(ids.tolist())) >= 5
                assert reader.page(limit=5)
        except BaseException as error:  # noqa: BLE001 the main thread tells it
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    indexer = Indexer(copied, model=colour_model)
    more = tmp_path / "more"
    more.mkdir()
    for number in range(12):
        Image.new("RGB", (9, 9), (number, 200, 3)).save(more / f"{number}.png")
        (more / f"{number - 3}.png").unlink(missing_ok=True)
        indexer.update([more])
    stop.set()
    for thread in threads:
        thread.join()
    reader.close()
    assert wrong == []


def test_a_missing_index_names_the_command(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="pocketclip index"):
        IndexReader(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\x00" + b"\x00" * 200])
def test_another_file_is_refused(copied: Path, content: bytes):
    (copied / "pictures.sqlite").write_bytes(content)
    with pytest.raises(ValueError, match=r"pictures\.sqlite"):
        IndexReader(copied)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE meta SET value = '1' WHERE key = 'version'", "version 1 .* reads version 2"),
        ("UPDATE meta SET value = 'x' WHERE key = 'format'", "no index of pictures"),
        ("DELETE FROM meta WHERE key = 'embed_dim'", "embed_dim"),
        ("UPDATE meta SET value = 'x' WHERE key = 'embed_dim'", "damaged"),
        ("DELETE FROM meta WHERE key = 'rotation'", "rotation"),
        ("UPDATE meta SET value = x'00' WHERE key = 'rotation'", "rotation"),
        ("UPDATE items SET slot = 1000000 WHERE id = 3", "was cut"),
        ("DROP TABLE items", "index the pictures again"),
    ],
)
def test_a_damaged_index_is_refused(copied: Path, statement: str, named: str):
    change(copied, statement)
    with pytest.raises(ValueError, match=named):
        IndexReader(copied).vectors.search(IndexReader(copied).vectors.rows([1])[0], 3)


def test_a_cut_database_is_not_indexed_into(copied: Path, photos: Path, colour_model: Path):
    path = copied / "pictures.sqlite"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"was cut.*index the pictures again"):
        index([photos], copied, model=colour_model)


def test_an_index_can_be_read_where_nothing_can_be_written(copied: Path):
    for path in (*copied.iterdir(), copied):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        reader = IndexReader(copied)
        assert len(reader.page()) == 25
        assert len(reader.vectors) == 25
        reader.close()
    finally:
        for path in (copied, *copied.iterdir()):
            path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"POCKETCLIP_INDEX": "/a/b"}, "/a/b"),
        ({"XDG_DATA_HOME": "/data"}, "/data/pocketclip/index"),
        ({"HOME": "/home/me"}, "/home/me/.local/share/pocketclip/index"),
    ],
)
def test_an_index_that_nobody_named_has_a_place(monkeypatch: pytest.MonkeyPatch, variables, wanted: str):
    for name in ("POCKETCLIP_INDEX", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_index() == Path(wanted)
