"""Sources: which files are pictures, in which order, and packed folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocketclip.search.source import list_entries


def test_pictures_are_found_at_any_depth_in_one_order(tmp_path: Path):
    for name in (
        "b.png",
        "a/z.JPEG",
        "a/deep/er/x.webp",
        "notes.txt",
        ".hidden.png",
        ".git/y.png",
        "noending",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"content of " + name.encode())
    (tmp_path / "loop").symlink_to(tmp_path)
    entries = list_entries(tmp_path)
    assert [entry.name for entry in entries] == ["a/deep/er/x.webp", "a/z.JPEG", "b.png"]
    assert entries[1].read() == (b"content of a/z.JPEG", None)


def test_a_name_that_is_not_utf8_stays_printable(tmp_path: Path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"x")
    (entry,) = list_entries(tmp_path)
    assert entry.name == r"caf\xe9.png"
    assert entry.read()[0] == b"x"


def test_a_packed_folder_gives_its_samples(shapes: Path):
    entries = list_entries(shapes, splits=("validation",))
    assert len(entries) == 24
    assert entries[0].key == "validation0000"
    assert entries[0].path == Path("validation/000000.tar")
    image, caption = entries[3].read()
    assert image.startswith(b"\x89PNG")
    assert caption == "a orange circle"
    assert len(list_entries(shapes)) == 72


@pytest.mark.parametrize(
    ("make", "splits", "named"),
    [
        (lambda path: None, (), "does not exist"),
        (lambda path: path.write_bytes(b""), (), "is a file"),
        (lambda path: path.mkdir(), (), "holds no pictures"),
        (lambda path: path.mkdir(), ("train",), "has no splits"),
    ],
)
def test_a_useless_source_is_refused(tmp_path: Path, make, splits, named: str):
    make(tmp_path / "source")
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        list_entries(tmp_path / "source", splits=splits)


def test_an_unknown_split_is_refused(shapes: Path):
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation"):
        list_entries(shapes, splits=("test",))
