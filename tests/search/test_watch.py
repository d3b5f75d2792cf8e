"""Watching: what changes on disk is in the index soon, by passes that look only where something changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from pocketclip.search.build import Indexer, IndexSummary
from pocketclip.search.store import IndexReader
from pocketclip.search.watch import WatchConfig, changed_folders, watch

pytest.importorskip("watchfiles")


def save_picture(path: Path, colour: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20), colour).save(path)
    return path


def names(out: Path) -> list[str]:
    reader = IndexReader(out)
    found = sorted(str(picture.path) for picture in reader.page())
    reader.close()
    return found


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it holds within half a minute."""
    for _ in range(300):
        if condition():
            return True
        time.sleep(0.1)
    return False


@contextmanager
def watched(indexer: Indexer, folder: Path) -> Generator[list[IndexSummary], None, None]:
    stop = threading.Event()
    summaries: list[IndexSummary] = []
    config = WatchConfig(quiet_s=0.1, longest_s=0.5)
    thread = threading.Thread(
        target=watch,
        args=(indexer, [folder]),
        kwargs={"stop": stop, "config": config, "announce": summaries.append},
    )
    thread.start()
    try:
        assert soon(lambda: bool(summaries))
        time.sleep(0.3)  # the system's watch begins after the first pass
        yield summaries
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_changes_are_indexed_soon(tmp_path: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch):
    photos, out = tmp_path / "photos", tmp_path / "x.index"
    save_picture(photos / "a" / "red.png", "red")
    save_picture(photos / "b" / "blue.png", "blue")
    indexer = Indexer(out, model=colour_model)
    looked: list[object] = []
    original = Indexer.update

    def update(self: Indexer, sources=(), *, within=None):
        looked.append(within)
        return original(self, sources, within=within)

    monkeypatch.setattr(Indexer, "update", update)
    with watched(indexer, photos) as summaries:
        assert summaries[0].num_items == 2
        save_picture(photos / "a" / "pink.png", "pink")
        assert soon(lambda: names(out) == ["a/pink.png", "a/red.png", "b/blue.png"])
        assert looked[1] == {photos: [Path("a")]}
        (photos / "b").rename(photos / "c")
        assert soon(lambda: names(out) == ["a/pink.png", "a/red.png", "c/blue.png"])
        (photos / "a" / "red.png").unlink()
        assert soon(lambda: names(out) == ["a/pink.png", "c/blue.png"])
        num = len(looked)
        (photos / "a" / "notes.txt").write_text("nothing to see")
        time.sleep(1)
        assert len(looked) == num
        (photos / "a" / "cut.png").write_bytes(b"\x89PNG")
        save_picture(photos / "a" / "last.png", "white")
        assert soon(lambda: len(names(out)) == 3)
    assert {summary.num_new for summary in summaries} <= {0, 1, 2}


def test_a_pass_that_fails_is_told_and_the_watch_goes_on(
    tmp_path: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    photos, out = tmp_path / "photos", tmp_path / "x.index"
    save_picture(photos / "red.png", "red")
    indexer = Indexer(out, model=colour_model)
    original, failures = Indexer.update, []

    def update(self: Indexer, sources=(), *, within=None):
        if within is not None and not failures:
            failures.append(within)
            raise BlockingIOError("it is being indexed by another process")
        return original(self, sources, within=within)

    monkeypatch.setattr(Indexer, "update", update)
    with watched(indexer, photos):
        save_picture(photos / "pink.png", "pink")
        assert soon(lambda: bool(failures))
        save_picture(photos / "blue.png", "blue")
        assert soon(lambda: len(names(out)) == 3)
    assert "not indexed now: it is being indexed by another process" in capfd.readouterr().err


def test_only_what_concerns_an_index_is_looked_at(tmp_path: Path):
    photos, other = tmp_path / "photos", tmp_path / "other"
    for path in (
        photos / "a" / "x.JPG",
        photos / "a" / "b" / "y.heic",
        photos / "c" / "z.mp4",
        other / "o.png",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for path in (photos / "c" / "notes.txt", photos / ".hidden" / "h.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def found(*changed: Path) -> dict[Path, list[Path]]:
        return changed_folders([photos, other], changed)

    assert found(photos / "a" / "x.JPG", photos / "a" / "b" / "y.heic") == {photos: [Path("a")]}
    assert found(photos / "c" / "z.mp4", other / "o.png") == {photos: [Path("c")], other: [Path()]}
    assert found(photos / "c" / "notes.txt", photos / ".hidden" / "h.png", tmp_path / "x.png") == {}
    assert found(photos / "gone" / "deep") == {photos: [Path("gone")]}
    assert found(photos / "a" / "b") == {photos: [Path("a")]}
    assert found(photos) == {photos: [Path()]}


@pytest.mark.parametrize("field", ["quiet_s", "longest_s", "whole_s"])
def test_an_impossible_config_is_refused(field: str):
    with pytest.raises(ValueError, match=field):
        WatchConfig(**{field: 0})
