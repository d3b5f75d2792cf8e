"""Parquet tables with the pictures' bytes inside."""

import sys

import pytest

from pocketclip.pack import PackConfig, pack

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CONFIG = PackConfig(validation=0)


@pytest.fixture
def packed(tmp_path, unpack):
    def run(table, **options):
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "in" / "a.parquet", **options)
        index = pack(tmp_path / "in", tmp_path / "out", config=CONFIG)
        return unpack(tmp_path / "out", index), {drop.source: drop.reason for drop in index.dropped}

    return run


def test_pictures_as_hugging_face_writes_them(packed, encode):
    table = pa.table(
        {
            "image": [{"bytes": encode(), "path": "a.png"}, {"bytes": encode("JPEG"), "path": None}],
            "text": ["first", "second"],
            "score": [0.5, float("nan")],
            "kept": [True, None],
            "left_out": [{"x": 1}, {"x": 2}],
        }
    )
    samples, dropped = packed(table)
    assert not dropped
    assert samples["first"].image == encode()
    assert samples["first"].meta == {"score": 0.5, "kept": True}
    assert samples["second"].meta == {"score": None, "kept": None}


def test_plain_bytes_lists_of_captions_and_keys(packed, encode):
    table = pa.table(
        {"jpg": [encode("JPEG")], "captions": pa.array([["one", "two"]]), "uid": ["photo/1"]},
        schema=pa.schema(
            {"jpg": pa.large_binary(), "captions": pa.large_list(pa.string()), "uid": pa.large_string()}
        ),
    )
    samples, _ = packed(table)
    assert samples["one"].captions == ("one", "two")
    assert samples["one"].key.startswith("photo-1-")


def test_many_rows_keep_their_order(packed, encode):
    table = pa.table({"image": [encode(size=8)] * 100, "text": [f"picture {n}" for n in range(100)]})
    samples, _ = packed(table, row_group_size=7)
    assert list(samples) == [f"picture {n}" for n in range(100)]
    assert len({sample.key for sample in samples.values()}) == 100


def test_bad_rows_are_listed_and_the_good_ones_kept(packed, encode):
    texts = pa.array([b"good", b"caf\xe9", b"", None, b"no bytes", b"none", b"zero"], pa.binary()).view(
        pa.string()
    )
    images = [{"bytes": encode(), "path": "x"}] * 4
    images += [{"bytes": None, "path": "far/away.png"}, None, {"bytes": b"", "path": "x"}]
    samples, dropped = packed(pa.table({"image": images, "text": texts}))
    assert list(samples) == ["good"]
    assert "not UTF-8 (byte 3)" in dropped["a.parquet: row 1"]
    assert dropped["a.parquet: row 2"] == dropped["a.parquet: row 3"] == "no caption"
    assert dropped["a.parquet: row 4"] == "no picture in the row (only its path, far/away.png)"
    assert dropped["a.parquet: row 5"] == "no picture in the row"
    assert dropped["a.parquet: row 6"] == "the picture has zero bytes"


def test_files_that_cannot_be_read_are_listed(tmp_path, packed, encode):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "in" / "other.parquet")
    samples, dropped = packed(pa.table({"image": [encode()], "text": ["good"]}))
    assert list(samples) == ["good"]
    assert "cannot be read after row 0" in dropped["cut.parquet"]
    assert "it has the columns a: name the pictures' image and the captions' text" in dropped["other.parquet"]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"run pip install 'pocketclip\[parquet\]'"):
        pack(tmp_path / "a.parquet", tmp_path / "out", config=CONFIG)
