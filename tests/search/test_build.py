"""Indexing: only what is new, copies and renames for nothing, crashes survived, bad files listed, no torch."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.publish import sha256_file
from pocketclip.runtime import ExportedModel
from pocketclip.search.build import IndexConfig, Indexer, forget, index
from pocketclip.search.prepare import Preparer
from pocketclip.search.store import IndexReader
from pocketclip.search.writer import open_writer

COLOURS = ("red", "blue", "lime", "white")


def save_picture(
    path: Path, colour: str | tuple[int, ...] = "red", *, size: tuple[int, int] = (30, 20)
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of plain colours, several formats and sizes, one upright only by EXIF."""
    folder = tmp_path / "photos"
    save_picture(folder / "red.png")
    save_picture(folder / "blue.jpg", "blue", size=(400, 300))
    save_picture(folder / "more" / "green.webp", "lime")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (60, 40), "white").save(folder / "more" / "white.jpg", exif=turned)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "photos.index"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each run of the network has had."""
    counts: list[int] = []
    original = ExportedModel.embed_pixels

    def counted(self: ExportedModel, pixels: np.ndarray) -> np.ndarray:
        counts.append(len(pixels))
        return original(self, pixels)

    monkeypatch.setattr(ExportedModel, "embed_pixels", counted)
    return counts


def listed(out: Path) -> dict[str, int]:
    """Every file of an index -> its item; the index is checked on the way."""
    check(out)
    with closing(sqlite3.connect(out / "pictures.sqlite")) as database:
        return dict(
            database.execute(
                "SELECT coalesce(nullif(f.key, ''), f.path), i.id FROM files AS f "
                "JOIN items AS i ON i.sha256 = f.sha256 WHERE i.frame = 0"
            ).fetchall()
        )


def check(out: Path) -> None:
    """What must hold at any time, whatever happened."""
    with closing(sqlite3.connect(out / "pictures.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not database.execute(
            "SELECT * FROM entries WHERE sha256 IS NOT NULL AND sha256 NOT IN (SELECT sha256 FROM items)"
        ).fetchall(), "a file without its item"
        assert not database.execute(
            "SELECT * FROM items WHERE sha256 NOT IN (SELECT sha256 FROM entries WHERE sha256 IS NOT NULL) "
            "AND sha256 NOT IN (SELECT sha256 FROM loose)"
        ).fetchall(), "an item without a file"
        assert not database.execute(
            "SELECT slot FROM free_slots INTERSECT SELECT slot FROM items"
        ).fetchall(), "a slot that is free and taken"
    reader = IndexReader(out)
    ids = reader.vectors.ids()
    assert len(ids) == len(reader)
    if len(ids):
        np.testing.assert_allclose(np.linalg.norm(reader.vectors.rows(ids.tolist()), axis=1), 1, atol=1e-4)
    for number in ids.tolist():
        assert reader.thumbnail(number).startswith(b"\xff\xd8")
    reader.close()


def test_everything_about_a_picture_is_kept(photos: Path, out: Path, colour_model: Path):
    summary = index([photos], out, model=colour_model)
    assert (summary.path, summary.num_items, summary.num_new, summary.skipped) == (out, 4, 4, ())
    assert summary.pictures_per_second > 0
    reader = IndexReader(out)
    pictures = {picture.name: picture for picture in reader.page()}
    green, red, white = pictures["green.webp"], pictures["red.png"], pictures["white.jpg"]
    assert (green.folder, green.path) == (photos, Path("more/green.webp"))
    assert (red.key, red.caption, red.frame, red.at_s, red.kind) == (None, None, 0, None, "picture")
    assert red.sha256 == sha256_file(photos / "red.png")
    assert red.num_bytes == (photos / "red.png").stat().st_size
    assert (white.width, white.height) == (40, 60)  # upright
    model = ExportedModel(colour_model)
    with Image.open(photos / "blue.jpg") as image:
        wanted = model.embed_images([image])
    np.testing.assert_allclose(reader.vectors.rows([pictures["blue.jpg"].id]), wanted, atol=2e-3)
    reader.close()


def test_a_packed_folder_keeps_keys_and_captions(shapes: Path, out: Path, colour_model: Path):
    config = IndexConfig(splits=("validation",), batch_size=5)
    assert index([shapes], out, model=colour_model, config=config).num_items == 24
    reader = IndexReader(out)
    (first,) = reader.items([1])
    assert (first.path, first.key) == (Path("validation/000000.tar"), "validation0000")
    assert first.caption == "a red circle"
    assert reader.data(1).startswith((b"\x89PNG", b"\xff\xd8"))
    reader.close()
    assert index([shapes], out, config=config).num_new == 0


def test_what_has_not_changed_is_not_read(
    photos: Path, out: Path, colour_model: Path, embedded: list[int], monkeypatch: pytest.MonkeyPatch
):
    index([photos], out, model=colour_model)
    assert sum(embedded) == 4

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("pocketclip.search.prepare.Preparer._prepare", forbidden)
    summary = index([], out)
    assert (summary.num_items, summary.num_new, summary.num_moved, summary.num_gone) == (4, 0, 0, 0)


def test_renames_and_copies_keep_their_item_and_cost_no_embedding(
    photos: Path, out: Path, colour_model: Path, embedded: list[int]
):
    index([photos], out, model=colour_model)
    before = listed(out)
    (photos / "more").rename(photos / "renamed")
    shutil.copy(photos / "red.png", photos / "copy.png")
    os.utime(photos / "blue.jpg")
    embedded.clear()
    summary = index([photos], out)
    assert (summary.num_items, summary.num_new, summary.num_moved, summary.num_gone) == (4, 0, 4, 0)
    assert embedded == []
    after = listed(out)
    assert after["renamed/green.webp"] == before["more/green.webp"]
    assert after["copy.png"] == after["red.png"] == before["red.png"]
    assert "more/green.webp" not in after
    reader = IndexReader(out)
    assert reader.places(after["red.png"]) == [photos / "red.png", photos / "copy.png"]
    reader.close()


def test_a_file_that_moves_to_another_source_keeps_its_item(
    photos: Path, out: Path, colour_model: Path, embedded: list[int], tmp_path: Path
):
    save_picture(tmp_path / "other" / "black.png", "black")
    index([photos, tmp_path / "other"], out, model=colour_model)
    before = listed(out)
    (photos / "red.png").rename(tmp_path / "other" / "red.png")
    embedded.clear()
    summary = index([], out)
    assert (summary.num_new, summary.num_gone, embedded) == (0, 0, [])
    assert listed(out)["red.png"] == before["red.png"]


def test_contents_that_files_exchange_keep_their_items(photos: Path, out: Path, colour_model: Path, embedded):
    save_picture(photos / "a.png", "red")
    save_picture(photos / "b.png", "blue")
    index([photos], out, model=colour_model)
    before = listed(out)
    (photos / "a.png").rename(photos / "c")
    (photos / "b.png").rename(photos / "a.png")
    (photos / "c").rename(photos / "b.png")
    for name in ("a.png", "b.png"):
        os.utime(photos / name)
    embedded.clear()
    index([photos], out)
    after = listed(out)
    assert (after["a.png"], after["b.png"], embedded) == (before["b.png"], before["a.png"], [])


def test_many_copies_of_one_new_picture_are_embedded_once(
    out: Path, colour_model: Path, embedded, tmp_path: Path
):
    for number in range(40):
        save_picture(tmp_path / "photos" / f"{number}.png")
    summary = index(
        [tmp_path / "photos"], out, model=colour_model, config=IndexConfig(decoders=4, batch_size=4)
    )
    assert (summary.num_items, summary.num_new, summary.num_moved, sum(embedded)) == (1, 1, 39, 1)
    assert set(listed(out).values()) == {1}


def test_many_copies_of_one_bad_picture_are_all_listed(photos: Path, out: Path, colour_model: Path):
    for number in range(20):
        (photos / f"{number:02}.png").write_bytes(b"not a picture")
    summary = index([photos], out, model=colour_model, config=IndexConfig(decoders=4, batch_size=3))
    assert [skipped.name for skipped in summary.skipped] == [f"{number:02}.png" for number in range(20)]
    assert all(skipped.reason.startswith(skipped.name) for skipped in summary.skipped)
    check(out)


def test_a_changed_picture_becomes_another_item(photos: Path, out: Path, colour_model: Path):
    index([photos], out, model=colour_model)
    before = listed(out)
    save_picture(photos / "red.png", "black", size=(31, 21))
    summary = index([photos], out)
    assert (summary.num_items, summary.num_new, summary.num_gone) == (4, 1, 1)
    after = listed(out)
    assert after["red.png"] not in before.values()


def test_deleted_pictures_go_and_their_slots_are_used_again(photos: Path, out: Path, colour_model: Path):
    index([photos], out, model=colour_model)
    size = (out / "vectors.i8").stat().st_size
    for number, colour in enumerate(("black", "yellow", "pink", "cyan")):
        (photos / "red.png").unlink()
        save_picture(photos / "red.png", colour, size=(30 + number, 20))
        save_picture(photos / "blue.jpg", colour, size=(40 + number, 20))
        assert index([photos], out).num_items == 4
        check(out)
    assert (out / "vectors.i8").stat().st_size <= 2 * size
    (photos / "red.png").unlink()
    summary = index([photos], out)
    assert (summary.num_items, summary.num_gone) == (3, 1)
    assert sorted(listed(out)) == ["blue.jpg", "more/green.webp", "more/white.jpg"]


def test_a_folder_that_has_lost_everything_is_not_believed(photos: Path, out: Path, colour_model: Path):
    index([photos], out, model=colour_model)
    photos.rename(photos.with_name("away"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        index([], out)
    photos.mkdir()
    with pytest.raises(
        ValueError, match="4 of it are indexed: mount it, or take it out of the index with --forget"
    ):
        index([], out)
    assert len(listed(out)) == 4
    assert forget(out, [photos]) == 4
    assert listed(out) == {}
    with pytest.raises(ValueError, match="does not hold"):
        forget(out, [photos])


def test_a_shard_that_cannot_be_read_keeps_its_pictures(
    shapes: Path, out: Path, colour_model: Path, tmp_path: Path
):
    packed = Path(shutil.copytree(shapes, tmp_path / "packed"))
    num = index([packed], out, model=colour_model).num_items
    shard = packed / "validation" / "000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:2000])
    summary = index([packed], out)
    assert (summary.num_items, summary.num_gone) == (num, 0)
    assert [skipped.name for skipped in summary.skipped] == ["validation/000000.tar"]
    shard.write_bytes(whole)
    summary = index([packed], out)
    assert (summary.num_items, summary.num_new, summary.skipped) == (num, 0, ())


def test_bad_pictures_are_listed_and_not_tried_again_until_they_change(
    photos: Path, out: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch
):
    data = (photos / "blue.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.gif").write_bytes(b"hello")
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    summary = index([photos], out, model=colour_model, config=IndexConfig(batch_size=2))
    assert summary.num_items == 4
    assert [skipped.name for skipped in summary.skipped] == ["cut.jpg", "empty.png", "gone.png", "text.gif"]
    assert all(skipped.name in skipped.reason for skipped in summary.skipped)
    reader = IndexReader(out)
    assert tuple(reader.skipped()) == summary.skipped
    reader.close()
    tried = []
    original = Preparer._prepare

    def noted(self: object, entry: object, seen: object) -> object:
        tried.append(entry.name)  # type: ignore[attr-defined]
        return original(self, entry, seen)

    monkeypatch.setattr("pocketclip.search.prepare.Preparer._prepare", noted)
    assert index([photos], out).skipped == summary.skipped
    assert tried == ["gone.png"]  # it may be there the next time
    (photos / "cut.jpg").write_bytes(data)
    (photos / "text.gif").unlink()
    assert [skipped.name for skipped in index([photos], out).skipped] == ["empty.png", "gone.png"]
    assert listed(out)["cut.jpg"] == listed(out)["blue.jpg"]


def test_a_bomb_is_refused_from_its_header(photos: Path, out: Path, colour_model: Path):
    save_picture(photos / "bomb.png")
    data = bytearray((photos / "bomb.png").read_bytes())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (photos / "bomb.png").write_bytes(bytes(data))
    summary = index([photos], out, model=colour_model)
    assert [skipped.name for skipped in summary.skipped] == ["bomb.png"]
    assert "refused as a picture bomb" in summary.skipped[0].reason


def test_a_file_that_vanishes_meanwhile_is_told(photos: Path, out: Path, colour_model: Path, monkeypatch):
    from pocketclip.search import build

    original = build.walk

    def walked(*arguments: object, **named: object) -> list:
        entries = list(original(*arguments, **named))  # type: ignore[arg-type]
        (photos / "red.png").unlink()
        return entries

    monkeypatch.setattr(build, "walk", walked)
    summary = index([photos], out, model=colour_model)
    assert [skipped.reason for skipped in summary.skipped] == [
        f"red.png: cannot be read ({os.strerror(errno.ENOENT)})"
    ]
    monkeypatch.setattr(build, "walk", original)
    assert index([photos], out).skipped == ()


def test_names_that_are_not_utf8_are_indexed(photos: Path, out: Path, colour_model: Path):
    name = os.fsdecode(b"caf\xe9.png")
    save_picture(photos / "pink.png", "pink").rename(photos / name)
    (photos / os.fsdecode(b"bad\xff.png")).write_bytes(b"")
    summary = index([photos], out, model=colour_model)
    assert [skipped.name for skipped in summary.skipped] == [r"bad\xff.png"]
    reader = IndexReader(out)
    assert photos / name in [picture.file for picture in reader.page()]
    reader.close()
    assert index([photos], out).num_new == 0
    (photos / name).unlink()
    assert index([photos], out).num_gone == 1


def test_a_video_is_kept_whole(photos: Path, out: Path, colour_model: Path):
    av = pytest.importorskip("av")
    with av.open(str(photos / "film.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in ((250, 0, 0), (0, 0, 250)):
            for _ in range(20):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24")
                film.mux(stream.encode(frame))
        film.mux(stream.encode())
    summary = index([photos], out, model=colour_model, config=IndexConfig(batch_size=1))
    reader = IndexReader(out)
    frames = sorted(
        (picture for picture in reader.page() if picture.kind == "video"), key=lambda picture: picture.frame
    )
    assert [frame.frame for frame in frames] == list(range(len(frames)))
    assert len(frames) >= 2
    assert all(frame.at_s is not None for frame in frames)
    assert summary.num_items == 4 + len(frames)
    reader.close()
    (photos / "film.mp4").rename(photos / "renamed.mp4")
    assert index([photos], out).num_new == 0
    (photos / "renamed.mp4").unlink()
    assert index([photos], out).num_gone == len(frames)


def test_when_no_picture_can_be_used_nothing_is_left(out: Path, colour_model: Path, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 pictures.*a\.png"):
        index([tmp_path / "photos"], out, model=colour_model)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_an_empty_folder_is_refused(out: Path, colour_model: Path, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        index([tmp_path / "photos"], out, model=colour_model)


def test_other_peoples_folders_are_left_alone(photos: Path, colour_model: Path, tmp_path: Path):
    with pytest.raises(FileExistsError, match="other files in it"):
        index([photos], photos, model=colour_model)


@pytest.mark.parametrize(
    ("sources", "model", "named"), [(["photos"], None, "--model"), ([], True, "name a folder")]
)
def test_a_new_index_needs_pictures_and_a_model(
    photos: Path,
    out: Path,
    colour_model: Path,
    sources: list[str],
    model: bool | None,
    named: str,
    monkeypatch,
):
    monkeypatch.delenv("POCKETCLIP_MODEL", raising=False)
    with pytest.raises(ValueError, match=named):
        index([photos.parent / name for name in sources], out, model=colour_model if model else None)
    assert not out.exists()


def test_the_environment_may_name_the_model(photos: Path, out: Path, colour_model: Path, monkeypatch):
    monkeypatch.setenv("POCKETCLIP_MODEL", str(colour_model))
    assert index([photos], out).num_items == 4


def test_another_model_is_not_mixed_in(
    photos: Path, out: Path, colour_model: Path, make_colour_model, tmp_path: Path
):
    index([photos], out, model=colour_model)
    other = make_colour_model(tmp_path / "other", order=(2, 1, 0))
    with pytest.raises(ValueError, match=r"another model.*--out"):
        index([photos], out, model=other)
    assert len(listed(out)) == 4


def test_a_damaged_model_is_refused_before_any_work(
    photos: Path, out: Path, colour_model: Path, tmp_path: Path
):
    model = Path(shutil.copytree(colour_model, tmp_path / "model"))
    (model / "image.onnx").write_bytes((model / "image.onnx").read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"image\.onnx.*cut or changed"):
        index([photos], out, model=model)


def test_an_unwritable_place_is_named(photos: Path, colour_model: Path, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="cannot write"):
        index([photos], tmp_path / "file" / "x", model=colour_model)


def test_only_one_process_indexes(photos: Path, out: Path, colour_model: Path):
    index([photos], out, model=colour_model)
    meta = IndexReader(out).meta
    with open_writer(out, meta), pytest.raises(BlockingIOError, match="another process"):
        index([photos], out)
    assert index([photos], out).num_items == 4


@pytest.mark.parametrize("limit", [60_000, 120_000, 400_000])
def test_a_full_disk_leaves_an_index_that_goes_on(out: Path, colour_model: Path, tmp_path: Path, limit: int):
    for number in range(60):
        save_picture(tmp_path / "photos" / f"{number}.png", (number, 0, 100))
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from pocketclip.search.build import IndexConfig, index\n"
        "from pocketclip.search import intake\n"
        "intake._KEEP_S = 0\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "photos, out, model = map(Path, sys.argv[1:4])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))\n"
        "try: index([photos], out, model=model, config=IndexConfig(batch_size=4))\n"
        "except OSError as error: print('OSError', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "photos", out, colour_model, str(limit)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "OSError" in done.stdout, done
    assert "disk full" in done.stdout, done
    assert index([tmp_path / "photos"], out, model=colour_model).num_items == 60
    assert len(listed(out)) == 60


def _kill_soon(command: list[str | Path], *, after_s: float) -> int:
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    return child.wait()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(out: Path, colour_model: Path, tmp_path: Path, embedded: list[int]):
    drawn = random.Random(0)
    photos = tmp_path / "photos"
    for number in range(300):
        save_picture(photos / f"{number:03}.png", (number % 256, number // 256, 50), size=(60, 40))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pocketclip.search import intake\n"
        "from pocketclip.search.build import IndexConfig, index\n"
        "intake._KEEP_S = 0\n"
        "photos, out, model = map(Path, sys.argv[1:])\n"
        "index([photos], out, model=model, config=IndexConfig(batch_size=4))\n"
    )
    kept = [0]
    for trial in range(8):
        _kill_soon(
            [sys.executable, "-c", program, photos, out, colour_model], after_s=drawn.uniform(0.6, 1.5)
        )
        if (out / "pictures.sqlite").is_file() and trial:
            files = listed(out) if _has_tables(out) else {}
            kept.append(len(files))
            if files:
                victim = photos / drawn.choice(sorted(files))
                victim.rename(victim.with_name(f"moved-{victim.name}"))
    assert kept == sorted(kept), "what was kept once was lost"
    before = kept[-1]
    summary = index([photos], out, model=colour_model)
    assert summary.num_items == 300
    assert summary.num_new <= 300 - before
    assert len(listed(out)) == 300


def _has_tables(out: Path) -> bool:
    with closing(sqlite3.connect(out / "pictures.sqlite")) as database:
        return bool(database.execute("SELECT 1 FROM sqlite_master").fetchone())


@pytest.mark.parametrize("field", ["batch_size", "decoders", "threads"])
def test_an_impossible_config_is_refused(field: str):
    with pytest.raises(ValueError, match=field):
        IndexConfig(**{field: 0})


def test_readers_follow_while_it_is_indexed(photos: Path, out: Path, colour_model: Path):
    indexer = Indexer(out, model=colour_model)
    indexer.update([photos])
    reader = IndexReader(out)
    generation = reader.generation()
    red = next(picture for picture in reader.page() if picture.name == "red.png")
    assert len(reader.vectors) == 4
    save_picture(photos / "pink.png", "pink")
    (photos / "red.png").unlink()
    indexer.update()
    assert reader.generation() > generation
    assert len(reader.vectors) == 4
    ids, _ = reader.vectors.search(np.array([1, 0, 0], np.float32), 10)
    assert red.id not in ids.tolist()
    assert sorted(picture.name for picture in reader.items(ids.tolist())) == [
        *("blue.jpg", "green.webp", "pink.png", "white.jpg"),
    ]
    reader.close()


def test_a_pass_within_subfolders_looks_nowhere_else(photos: Path, out: Path, colour_model: Path):
    indexer = Indexer(out, model=colour_model)
    indexer.update([photos])
    save_picture(photos / "more" / "pink.png", "pink")
    (photos / "more" / "green.webp").unlink()
    (photos / "red.png").unlink()
    summary = indexer.update([photos], within={photos: [Path("more")]})
    assert (summary.num_new, summary.num_gone) == (1, 1)
    assert sorted(listed(out)) == ["blue.jpg", "more/pink.png", "more/white.jpg", "red.png"]
    shutil.rmtree(photos / "more")
    assert indexer.update([photos], within={photos: [Path("more")]}).num_gone == 2


def test_progress_is_told_while_it_lasts(photos: Path, out: Path, colour_model: Path, monkeypatch):
    from pocketclip.search import intake

    monkeypatch.setattr(intake, "_KEEP_S", 0)
    seen = []
    original = intake.Intake._keep

    def kept(self: intake.Intake, total: int) -> None:
        original(self, total)
        reader = IndexReader(out)
        seen.append(reader.progress())
        reader.close()

    monkeypatch.setattr(intake.Intake, "_keep", kept)
    index([photos], out, model=colour_model, config=IndexConfig(batch_size=2))
    assert seen == [(2, 4), (4, 4), None]
    reader = IndexReader(out)
    assert reader.progress() is None
    reader.close()


def test_index_runs_without_torch(photos: Path, colour_model: Path, out: Path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pocketclip.search import SearchIndex, index\n"
        "photos, out, model = map(Path, sys.argv[1:])\n"
        "index([photos], out, model=model)\n"
        "assert SearchIndex(out).search('red').hits\n"
        "assert not {'torch', 'onnx', 'faiss', 'av', 'pillow_heif', 'rawpy'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, photos, out, colour_model], check=True, timeout=300
    )


def test_the_command_line_remembers(photos: Path, out: Path, colour_model: Path, cli, monkeypatch):
    monkeypatch.setenv("POCKETCLIP_INDEX", str(out))
    done = json.loads(cli("index", photos, "--model", colour_model, "--json").out)
    assert {key: done[key] for key in ("index", "pictures", "new", "gone")} == {
        "index": str(out),
        "pictures": 4,
        "new": 4,
        "gone": 0,
    }
    (photos / "red.png").unlink()
    assert "3 pictures in" in cli("index").out
    assert "3 pictures taken out" in cli("index", photos, "--forget").out
    assert cli("index", "--forget").code == 2
