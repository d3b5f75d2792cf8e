"""`pack` finds out what it is given, does it once, and says what it cannot do."""

import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.index import read_index
from pocketclip.data.picture import decode
from pocketclip.pack import PackConfig, pack

CONFIG = PackConfig(validation=0.3, shard_samples=8)


@pytest.fixture
def pictures(tmp_path, encode):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.png").write_bytes(encode(size=number + 1))
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def bytes_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_validation_is_a_matter_of_keys_alone(pictures, tmp_path, unpack):
    index = pack(pictures, tmp_path / "out", config=CONFIG)
    assert list(index.splits) == ["train", "validation"]
    assert 4 <= index.num_samples("validation") <= 20
    assert index.num_samples() == 40

    def validation(folder):
        index = read_index(folder)
        only = type(index)(source="", splits={"validation": index.splits["validation"]})
        return set(unpack(folder, only))

    for number in range(0, 40, 2):
        (pictures / f"{number}.png").unlink()
        (pictures / f"{number}.txt").unlink()
    pack(pictures, tmp_path / "fewer", config=CONFIG)
    assert validation(tmp_path / "fewer") < validation(tmp_path / "out")


def test_twice_is_the_same_bytes_from_wherever_it_is_called(pictures, tmp_path, monkeypatch):
    pack(pictures, tmp_path / "one", config=CONFIG)
    pack(pictures, tmp_path / "two", config=CONFIG)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    moved = pictures.rename(tmp_path / "moved")
    assert pack(moved, tmp_path / "one", config=CONFIG) == read_index(tmp_path / "two")


def test_a_changed_source_or_configuration_needs_another_folder(pictures, tmp_path):
    out = tmp_path / "out"
    pack(pictures, out, config=CONFIG)
    with pytest.raises(ValueError, match=r"\(made with another validation\): choose another output folder"):
        pack(pictures, out, config=PackConfig(validation=0.1, shard_samples=8))
    (pictures / "3.txt").write_text("picture x")
    with pytest.raises(ValueError, match=r"\(made with another fingerprint\)"):
        pack(pictures, out, config=CONFIG)


def test_folders_are_packed_in_hashed_order(pictures, tmp_path, unpack):
    index = pack(pictures, tmp_path / "out", config=PackConfig(validation=0))
    captions = list(unpack(tmp_path / "out", index))
    assert sorted(captions) == sorted(f"picture {number}" for number in range(40))
    assert captions != sorted(captions, key=lambda text: int(text.split()[1]))


def _sixteen_bit():
    return Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16))


@pytest.mark.parametrize(
    ("image", "kind", "options"),
    [
        (_sixteen_bit(), "PNG", {}),
        (Image.new("CMYK", (9, 9)), "JPEG", {}),
        (Image.new("LA", (9, 9)), "PNG", {}),
        (Image.new("P", (9, 9)), "PNG", {"transparency": 0}),
        (
            Image.new("RGB", (9, 9)),
            "GIF",
            {"save_all": True, "append_images": [Image.new("RGB", (9, 9), "red")]},
        ),
        (
            Image.new("RGB", (9, 9)),
            "WEBP",
            {"save_all": True, "append_images": [Image.new("RGB", (9, 9), "red")]},
        ),
    ],
)
def test_unusual_pictures_are_packed_and_decode_to_the_same(tmp_path, unpack, image, kind, options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.png").write_bytes(file.getvalue())  # what it is, its content says
    (source / "a.txt").write_text("a picture")
    index = pack(source, tmp_path / "out", config=PackConfig(validation=0))
    sample = unpack(tmp_path / "out", index)["a picture"]
    assert sample.extension == {"JPEG": "jpg", "WEBP": "webp"}.get(kind, "png")
    before = np.asarray(decode(file.getvalue(), name="before"))
    assert np.array_equal(np.asarray(decode(sample.image, name="after")), before)


def test_a_picture_bomb_is_dropped_without_a_warning(pictures, tmp_path, encode):
    data = bytearray(encode())
    data[16:24] = (50_000).to_bytes(4) * 2
    (pictures / "bomb.png").write_bytes(data)
    (pictures / "bomb.txt").write_text("boom")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = pack(pictures, tmp_path / "out", config=CONFIG)
    assert index.num_samples() == 40
    assert [drop.source for drop in index.dropped] == ["bomb.png"]


def test_empty_and_absent_sources_say_what_is_understood(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds nothing that can be packed.*metadata\.jsonl.*parquet"):
        pack(tmp_path / "empty", out, config=CONFIG)
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    with pytest.raises(ValueError, match="nothing that can be packed"):
        pack(tmp_path / "notes.pdf", out, config=CONFIG)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        pack(tmp_path / "none", out, config=CONFIG)
    with pytest.raises(FileNotFoundError, match="none of its 3 files is there"):
        pack(tmp_path / "{0..2}.tar", out, config=CONFIG)
    with pytest.raises(ValueError, match=r"the range \{2\.\.0\} is empty"):
        pack(tmp_path / "{2..0}.tar", out, config=CONFIG)
    assert not out.exists()


def test_pictures_without_any_caption_say_what_is_missing(tmp_path, encode):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encode())
    with pytest.raises(ValueError, match=r"all 1 items were dropped, the first, a\.png, because: no caption"):
        pack(tmp_path / "in", tmp_path / "out", config=CONFIG)


def test_two_kinds_side_by_side_are_refused(pictures, tmp_path):
    (pictures / "a.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="side by side"):
        pack(pictures, tmp_path / "out", config=CONFIG)


def test_output_inside_the_source_is_refused(pictures):
    with pytest.raises(ValueError, match="lies inside"):
        pack(pictures, pictures / "out", config=CONFIG)


def test_a_packed_folder_is_no_source(pictures, tmp_path):
    pack(pictures, tmp_path / "out", config=CONFIG)
    with pytest.raises(ValueError, match="already a packed folder"):
        pack(tmp_path / "out", tmp_path / "again", config=CONFIG)
    (pictures / "index.json").write_text(json.dumps({"pages": []}))  # some other tool's
    assert pack(pictures, tmp_path / "new", config=CONFIG).num_samples() == 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation": 1.0}, "validation"),
        ({"validation": -0.1}, "validation"),
        ({"shard_samples": 0}, "shard"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PackConfig(**options)
