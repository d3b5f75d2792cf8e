"""Folders of pictures, captioned in the three usual ways."""

import json
import os

import pytest

from pocketclip.pack import PackConfig, pack

CONFIG = PackConfig(validation=0)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def packed(source, tmp_path, unpack):
    def run():
        index = pack(source, tmp_path / "out", config=CONFIG)
        return unpack(tmp_path / "out", index), {drop.source: drop.reason for drop in index.dropped}

    return run


def test_sidecars(source, packed, encode):
    (source / "cats").mkdir()
    (source / "cats" / "one.JPG").write_bytes(encode("JPEG"))
    (source / "cats" / "one.txt").write_text("\ufeffa cat\r\n\n  the same cat, again\na cat\n")
    (source / "dog.gif").write_bytes(encode("GIF"))
    (source / "dog.TXT").write_text("a dog")
    samples, dropped = packed()
    assert not dropped
    assert samples["a cat"].captions == ("a cat", "the same cat, again")
    assert (samples["a cat"].extension, samples["a cat"].image) == ("jpg", encode("JPEG"))
    assert (samples["a dog"].key, samples["a dog"].extension) == ("dog", "png")


def test_bad_files_are_listed_and_the_good_ones_kept(source, packed, encode):
    files = {
        "good.png": encode(),
        "good.txt": b"good",
        "alone.png": encode(),
        "empty.png": encode(),
        "empty.txt": b" \n",
        "latin.png": encode(),
        "latin.txt": "café".encode("latin-1"),
        "zero.png": b"",
        "zero.txt": b"zero",
        "cut.jpg": encode("JPEG", size=300)[:-100],
        "cut.txt": b"cut",
        "film.mp4": b"\0\0\0\x18ftypmp42",
        "film.txt": b"a film",
        "readme.txt": b"about these pictures",
        "notes.pdf": b"%PDF",
        ".hidden.png": encode(),
        "._good.png": b"left by another system",
    }
    for name, data in files.items():
        (source / name).write_bytes(data)
    (source / "gone.png").symlink_to("nowhere")
    (source / "gone.txt").write_text("gone")
    samples, dropped = packed()
    assert list(samples) == ["good"]
    for name, reason in {
        "alone.png": r"no caption (no alone.txt beside it)",
        "empty.png": "no caption (empty.txt is empty)",
        "latin.png": "latin.txt: the caption is not UTF-8 (byte 3): save it as UTF-8",
        "zero.png": "the picture has zero bytes",
        "film.mp4": "not a picture in a known format (jpg, png, webp, gif, ...)",
        "readme.txt": "a text without a picture of the same name beside it",
    }.items():
        assert dropped.pop(name) == reason
    assert "damaged or cut off" in dropped.pop("cut.jpg")
    assert "no such file" in dropped.pop("gone.png")
    assert not dropped


def test_pictures_of_one_name_keep_apart(source, packed, encode):
    (source / "a.png").write_bytes(encode())
    (source / "a.jpg").write_bytes(encode("JPEG"))
    (source / "a.txt").write_text("both")
    (source / "b").mkdir()
    (source / "b" / "c.png").write_bytes(encode())
    (source / "b-c.png").write_bytes(encode())
    (source / "b" / "c.txt").write_text("inner")
    (source / "b-c.txt").write_text("outer")
    samples, dropped = packed()
    assert not dropped
    assert {"inner", "outer"} < set(samples)
    assert samples["outer"].key == "b-c"


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes here")
def test_file_names_that_are_not_utf8(source, packed, encode):
    name = os.fsdecode(b"caf\xe9")
    (source / f"{name}.png").write_bytes(encode())
    (source / f"{name}.txt").write_text("a café")
    (source / f"{name}2.png").write_bytes(b"")
    (source / f"{name}2.txt").write_text("nothing")
    samples, dropped = packed()
    assert samples["a café"].key.startswith("caf-")
    assert list(dropped) == [f"{name}2.png"]


@pytest.mark.parametrize(
    ("columns", "separator", "file"),
    [
        (("file_name", "text"), ",", "metadata.csv"),
        (("image", "caption"), ",", "captions.csv"),
        (("filepath", "title"), "\t", "captions.csv"),  # open_clip's defaults
        (("Filename", "Captions"), ";", "captions.csv"),
        (("file", "text"), "\t", "captions.tsv"),
    ],
)
def test_tables_as_others_write_them(source, packed, encode, columns, separator, file):
    (source / "a.png").write_bytes(encode())
    (source / "sub").mkdir()
    (source / "sub" / "b.png").write_bytes(encode(colour="blue"))
    rows = [(*columns, "licence"), ("a.png", "first", "CC0-1.0"), ("sub/b.png", "second", "CC0-1.0")]
    (source / file).write_text("\n".join(separator.join(row) for row in rows))
    samples, dropped = packed()
    assert not dropped
    assert samples["first"].meta == {"licence": "CC0-1.0"}
    assert samples["second"].image == encode(colour="blue")


def test_rows_of_one_picture_are_its_captions(source, packed, encode):
    (source / "a.png").write_bytes(encode())
    (source / "captions.csv").write_text('image,caption\na.png,one\na.png,"two, with comma"\na.png,one\n')
    samples, _ = packed()
    assert samples["one"].captions == ("one", "two, with comma")


def test_bad_rows_of_a_csv(source, packed, encode):
    (source / "a.png").write_bytes(encode())
    (source / "captions.csv").write_bytes(
        b"image,caption,by\na.png,good,me\nnone.png,absent,me\na.png,,me\n,no picture,me\na.png,caf\xe9,me\n"
        b"b.png\n.,a folder,me\n"
    )
    samples, dropped = packed()
    assert list(samples) == ["good"]
    assert "no such file" in dropped["none.png"]
    assert dropped["captions.csv: row 3"] == "no caption"
    assert dropped["captions.csv: row 4"] == "no picture (a field file_name with its path)"
    assert "not UTF-8" in dropped["captions.csv: row 5"]
    assert dropped["captions.csv: row 6"] == "no caption"
    assert "cannot be read" in dropped["."]


def test_metadata_jsonl_in_every_subfolder(source, packed, encode):
    for folder in ("train", "other"):
        (source / folder).mkdir()
        (source / folder / "0.png").write_bytes(encode())
        rows = [
            {"file_name": "0.png", "text": f"{folder} picture", "score": 0.5, "tags": ["x"]},
            {"file_name": "1.png", "text": ["list", "of texts"]},
        ]
        (source / folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (source / "train" / "1.png").write_bytes(encode())
    samples, dropped = packed()
    assert samples["train picture"].meta == {"score": 0.5, "tags": ["x"]}
    assert samples["list"].captions == ("list", "of texts")
    assert samples["other picture"].key != samples["train picture"].key
    assert "no such file" in dropped["other/1.png"]


def test_bad_lines_of_a_jsonl(source, packed, encode):
    (source / "a.png").write_bytes(encode())
    (source / "metadata.jsonl").write_bytes(
        b'{"file_name": "a.png", "text": "good", "score": NaN}\n{"file_name": \n[1]\n'
        b'{"file_name": "a.png", "text": "caf\xe9"}\n{"file_name": 3, "text": "x"}\n{"file_name": "a.png"}\n'
    )
    samples, dropped = packed()
    assert samples["good"].meta == {"score": None}
    reasons = [dropped[f"metadata.jsonl: row {row}"] for row in range(2, 7)]
    for reason, words in zip(
        reasons, ["not JSON", "not a JSON object", "not UTF-8", "no picture", "no caption"], strict=True
    ):
        assert words in reason


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("picture,caption", r"no picture column.*\(picture, caption\) file_name"),
        ("image,b", "no caption column"),
    ],
)
def test_a_table_without_its_columns_is_refused(source, packed, header, words):
    (source / "captions.csv").write_text(f"{header}\na,b\n")
    with pytest.raises(ValueError, match=words):
        packed()


def test_a_table_that_breaks_is_refused_by_line(source, packed):
    (source / "captions.csv").write_text("image,caption\na.png," + "x" * 200_000)
    with pytest.raises(
        ValueError, match=r"captions\.csv cannot be read as a table \(after line 1: field larger"
    ):
        packed()
