"""Sources: which files are pictures, in which order, whatever else lies about, and packed folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pocketclip.search.source import Entry, distinct, list_entries, walk


def names(source: Path) -> list[str]:
    return [entry.name for entry in walk(source)]


def lay(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"content of " + path.encode())


def test_pictures_are_found_at_any_depth_in_one_order(tmp_path: Path):
    lay(tmp_path, "b.png", "a/z.JPEG", "a/deep/er/x.webp", "a.png", "a-b/y.gif", "notes.txt", "noending")
    lay(tmp_path, ".hidden.png", ".git/y.png", "@eaDir/thumb.jpg", "__MACOSX/z.png")
    entries = list_entries(tmp_path)
    assert [entry.name for entry in entries] == [
        "a-b/y.gif",
        "a.png",
        "a/deep/er/x.webp",
        "a/z.JPEG",
        "b.png",
    ]
    assert entries[3].read() == (b"content of a/z.JPEG", None)
    assert entries[3].file == tmp_path / "a/z.JPEG"


def test_size_time_and_kind_are_known_before_reading(tmp_path: Path):
    lay(tmp_path, "film.MP4", "photo.heic", "shot.CR2")
    os.utime(tmp_path / "photo.heic", ns=(1, 1_700_000_000_123_456_789))
    film, photo, shot = list_entries(tmp_path)
    assert [film.kind, photo.kind, shot.kind] == ["video", "picture", "raw"]
    assert photo.num_bytes == len(b"content of photo.heic")
    assert photo.modified_ns == 1_700_000_000_123_456_789


def test_a_name_that_is_not_utf8_stays_printable(tmp_path: Path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"x")
    (entry,) = list_entries(tmp_path)
    assert entry.name == r"caf\xe9.png"
    assert entry.read()[0] == b"x"


def test_loops_end_and_a_folder_that_the_source_holds_is_found_in_its_own_place(tmp_path: Path):
    lay(tmp_path, "source/b/x.png", "beside.png")
    source = tmp_path / "source"
    (source / "a").symlink_to(source / "b")
    (source / "b/loop").symlink_to(source)
    (source / "b/up").symlink_to(tmp_path)  # would bring in all that lies beside the source
    (source / "self").symlink_to("self")
    assert names(source) == ["b/x.png"]


def test_a_linked_folder_elsewhere_is_walked_once(tmp_path: Path):
    lay(tmp_path, "source/x.png", "elsewhere/deep/y.png")
    source = tmp_path / "source"
    for link in ("first", "second"):
        (source / link).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "elsewhere")
    assert names(source) == ["first/deep/y.png", "x.png"]


def test_a_linked_file_is_a_file_and_a_link_to_nothing_is_told(tmp_path: Path):
    lay(tmp_path, "elsewhere/y.png", "source/x.png")
    (tmp_path / "source/link.png").symlink_to(tmp_path / "elsewhere/y.png")
    (tmp_path / "source/nothing.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "source/self.png").symlink_to("self.png")
    link, nothing, itself, _ = walk(tmp_path / "source")
    assert link.read()[0] == b"content of elsewhere/y.png"
    assert nothing.modified_ns == -1
    with pytest.raises(FileNotFoundError):
        nothing.read()
    with pytest.raises(OSError, match="symbolic links"):
        itself.read()


def test_a_pipe_is_told_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (entry,) = walk(tmp_path)
    with pytest.raises(OSError, match="not a plain file"):
        entry.read()


def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lay(tmp_path, "a/x.png", "locked/y.png", "z.png")
    scandir = os.scandir

    def refuse(path: Path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    good, locked, after = walk(tmp_path)
    assert [good.name, locked.name, after.name] == ["a/x.png", "locked", "z.png"]
    assert locked.unlisted
    assert not good.unlisted
    with pytest.raises(PermissionError):
        locked.read()


def test_depth_is_no_matter(tmp_path: Path):
    depth, name = 150, "a" * 20
    deep = tmp_path.joinpath(*[name] * depth)
    deep.mkdir(parents=True)
    (deep / "x.png").write_bytes(b"x")
    (entry,) = walk(tmp_path)
    assert len(entry.path.parts) == depth + 1


def test_what_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lay(tmp_path, "x.tiff")
    monkeypatch.setattr("pocketclip.search.source.MAX_READ_BYTES", 10)
    (entry,) = walk(tmp_path)
    with pytest.raises(OSError, match="17 bytes, more than 10"):
        entry.read()


def test_sources_within_sources_are_left_out(tmp_path: Path, shapes: Path):
    lay(tmp_path, "photos/2024/x.png", "other/y.png")
    packed = tmp_path / "photos/packed"
    shutil.copytree(shapes, packed)
    photos, inner, other = tmp_path / "photos", tmp_path / "photos/2024", tmp_path / "other"
    (tmp_path / "link").symlink_to(photos)
    assert distinct([inner, photos, other, photos, tmp_path / "link", packed]) == [photos, other, packed]


def test_a_packed_folder_gives_its_samples(shapes: Path):
    entries = list_entries(shapes, splits=("validation",))
    assert len(entries) == 24
    assert entries[0].key == "validation0000"
    assert entries[0].path == Path("validation/000000.tar")
    assert entries[0].num_bytes == (shapes / entries[0].path).stat().st_size
    image, caption = entries[3].read()
    assert image.startswith(b"\x89PNG")
    assert caption == "a orange circle"
    assert len(list_entries(shapes)) == 72


def test_a_damaged_shard_is_told_and_the_others_are_read(shapes: Path, tmp_path: Path):
    packed = tmp_path / "packed"
    shutil.copytree(shapes, packed)
    whole = list_entries(packed)
    broken = packed / whole[0].path
    broken.write_bytes(broken.read_bytes()[:1000])
    damaged: list[Entry] = [entry for entry in walk(packed) if entry.unlisted]
    assert [entry.path for entry in damaged] == [whole[0].path]
    with pytest.raises(ValueError, match="is cut"):
        damaged[0].read()
    rest = [entry for entry in whole if entry.path != whole[0].path]
    assert [entry.name for entry in walk(packed) if not entry.unlisted] == [entry.name for entry in rest]


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
