"""Indexing: whole or not at all, the same bytes again, bad pictures listed, no torch."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.publish import sha256_file
from pocketclip.search import IndexConfig, SearchIndex, index
from pocketclip.search.store import IndexReader


def save_picture(path: Path, colour: str = "red", *, size: tuple[int, int] = (30, 20)) -> Path:
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


def test_everything_about_a_picture_is_kept(photos: Path, colour_model: Path, tmp_path: Path):
    summary = index(photos, tmp_path / "x.sqlite", model=colour_model)
    assert (summary.path, summary.num_pictures, summary.skipped) == (tmp_path / "x.sqlite", 4, ())
    assert summary.pictures_per_second > 0
    reader = IndexReader(tmp_path / "x.sqlite")
    ids, vectors_ND = reader.vectors()
    pictures = dict(zip(["blue", "green", "white", "red"], reader.pictures(ids.tolist()), strict=True))
    assert vectors_ND.shape == (4, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors_ND, axis=1), 1, atol=1e-6)
    assert pictures["green"].path == Path("more/green.webp")
    assert pictures["red"].key is None
    assert pictures["red"].caption is None
    assert pictures["red"].sha256 == sha256_file(photos / "red.png")
    assert (pictures["white"].width, pictures["white"].height) == (40, 60)  # upright
    with Image.open(io.BytesIO(pictures["blue"].thumbnail)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (192, 144))


def test_a_packed_folder_keeps_keys_and_captions(shapes: Path, colour_model: Path, tmp_path: Path):
    summary = index(
        shapes,
        tmp_path / "x.sqlite",
        model=colour_model,
        config=IndexConfig(splits=("validation",), batch_size=5),
    )
    assert summary.num_pictures == 24
    first, *_ = IndexReader(tmp_path / "x.sqlite").pictures([1])
    assert (first.path, first.key) == (Path("validation/000000.tar"), "validation0000")
    assert first.caption == "a red circle"


def test_the_same_source_gives_the_same_bytes(photos: Path, colour_model: Path, tmp_path: Path):
    out = tmp_path / "x.sqlite"
    index(photos, out, model=colour_model, config=IndexConfig(batch_size=3, decoders=1, threads=1))
    first = out.read_bytes()
    index(photos, out, model=colour_model, config=IndexConfig(batch_size=3, decoders=4, threads=1))
    assert out.read_bytes() == first


def test_bad_pictures_are_counted_and_listed(photos: Path, colour_model: Path, tmp_path: Path):
    data = (photos / "blue.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.gif").write_bytes(b"hello")
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    summary = index(photos, tmp_path / "x.sqlite", model=colour_model, config=IndexConfig(batch_size=2))
    assert summary.num_pictures == 4
    assert [skipped.name for skipped in summary.skipped] == ["cut.jpg", "empty.png", "gone.png", "text.gif"]
    assert all(skipped.name in skipped.reason for skipped in summary.skipped)
    assert SearchIndex(tmp_path / "x.sqlite").skipped == summary.skipped


def test_names_that_are_not_utf8_are_indexed(photos: Path, colour_model: Path, tmp_path: Path):
    name = Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))
    shutil.copy(photos / "red.png", name)
    (photos / os.fsdecode(b"bad\xff.png")).write_bytes(b"")
    summary = index(photos, tmp_path / "x.sqlite", model=colour_model)
    assert [skipped.name for skipped in summary.skipped] == [r"bad\xff.png"]
    assert name in [hit.path for hit in SearchIndex(tmp_path / "x.sqlite").search("red", k=2)]


def test_when_no_picture_can_be_used_nothing_is_written(colour_model: Path, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 pictures.*a\.png"):
        index(tmp_path / "photos", tmp_path / "x.sqlite", model=colour_model)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_an_empty_folder_is_refused(colour_model: Path, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        index(tmp_path / "photos", tmp_path / "x.sqlite", model=colour_model)
    assert not (tmp_path / "x.sqlite").exists()


def test_a_damaged_model_is_refused_before_any_work(photos: Path, colour_model: Path, tmp_path: Path):
    model = Path(shutil.copytree(colour_model, tmp_path / "model"))
    (model / "image.onnx").write_bytes((model / "image.onnx").read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"image\.onnx.*cut or changed"):
        index(photos, tmp_path / "x.sqlite", model=model)


def test_an_unwritable_place_is_named(photos: Path, colour_model: Path, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="cannot write"):
        index(photos, tmp_path / "file" / "x.sqlite", model=colour_model)


def test_a_full_disk_leaves_the_earlier_index(photos: Path, colour_model: Path, tmp_path: Path):
    out = tmp_path / "x.sqlite"
    index(photos, out, model=colour_model)
    before = out.read_bytes()
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from pocketclip.search import index\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "photos, out, model = map(Path, sys.argv[1:])\n"
        "try: index(photos, out, model=model)\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, photos, out, colour_model], capture_output=True, text=True, timeout=60
    )
    assert "disk full while writing" in done.stdout, done
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "x.sqlite"]


def test_killed_while_indexing_leaves_nothing_under_the_name(
    photos: Path, colour_model: Path, tmp_path: Path
):
    out = tmp_path / "x.sqlite"
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pocketclip.runtime import ExportedModel\n"
        "from pocketclip.search import IndexConfig, index\n"
        "ExportedModel.embed_pixels = lambda *a: os.kill(os.getpid(), 9)\n"
        "photos, out, model = map(Path, sys.argv[1:])\n"
        "index(photos, out, model=model)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, photos, out, colour_model], capture_output=True)
    assert done.returncode == -9
    assert not out.exists()
    assert index(photos, out, model=colour_model).num_pictures == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "x.sqlite"]


@pytest.mark.parametrize("field", ["batch_size", "decoders", "thumbnail_px"])
def test_an_impossible_config_is_refused(field: str):
    with pytest.raises(ValueError, match=field):
        IndexConfig(**{field: 0})


def test_index_and_search_run_without_torch(photos: Path, colour_model: Path, tmp_path: Path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pocketclip.search import Row, SearchIndex, contact_sheet, index\n"
        "photos, out, model = map(Path, sys.argv[1:])\n"
        "index(photos, out, model=model)\n"
        "contact_sheet([Row(title='red', hits=SearchIndex(out).search('red'))], out.with_suffix('.png'))\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, photos, tmp_path / "x.sqlite", colour_model],
        check=True,
        timeout=60,
    )


def test_the_file_is_plain_sqlite(photos: Path, colour_model: Path, tmp_path: Path):
    index(photos, tmp_path / "x.sqlite", model=colour_model)
    with sqlite3.connect(tmp_path / "x.sqlite") as database:
        rows = database.execute("SELECT path, width FROM pictures ORDER BY path").fetchall()
        meta = dict(database.execute("SELECT key, value FROM meta").fetchall())
    database.close()
    assert rows == [("blue.jpg", 400), ("more/green.webp", 30), ("more/white.jpg", 40), ("red.png", 30)]
    assert (meta["format"], meta["version"], meta["embed_dim"]) == ("pocketclip-index", "1", "3")
