"""A shard gives back what was put in, is the same bytes each time, and other readers read it."""

import io
import json
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pocketclip.data.publish import sha256_file
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader, open_shard, write_shard


def png(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def some_samples(num=5):
    return [
        Sample(
            key=f"cat-{i}",
            image=png() + bytes(i),
            extension=("png", "jpg", "webp", "jpeg")[i % 4],
            captions=(f"cat {i}", "a second caption, 猫"),
            synthetic={"parts": ("cat", "whiskers")},
            meta={"licence": "CC0-1.0", "number": i, "nested": {"list": [1, None, "x"]}},
        )
        for i in range(num)
    ]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
samples = st.builds(
    Sample,
    key=st.from_regex(r"[A-Za-z0-9_-]{1,90}", fullmatch=True),
    image=st.binary(min_size=1, max_size=2000),
    extension=st.sampled_from(["jpg", "jpeg", "png", "webp"]),
    captions=st.lists(texts, min_size=1, max_size=3).map(tuple),
    synthetic=st.dictionaries(texts, st.lists(texts, max_size=2).map(tuple), max_size=2),
    meta=st.dictionaries(texts, json_values, max_size=3),
)


@settings(deadline=None, max_examples=60)
@given(
    content=st.lists(samples, max_size=6, unique_by=lambda s: s.key),
    blocks=st.dictionaries(st.from_regex(r"[a-z0-9_]{1,20}", fullmatch=True), st.binary(max_size=1500)),
)
def test_round_trip(tmp_path_factory, content, blocks):
    path = tmp_path_factory.mktemp("shard") / "train" / "000000.tar"
    entry = write_shard(path, content, blocks=blocks)
    assert (entry.file, entry.num_samples) == ("train/000000.tar", len(content))
    assert (entry.num_bytes, entry.sha256) == (path.stat().st_size, sha256_file(path))
    with ShardReader(path) as shard:
        assert list(shard) == content
        assert shard.keys == [sample.key for sample in content]
        for name, data in blocks.items():
            view = shard.block(name)
            assert view is not None
            assert view == data
        assert shard.block("absent") is None
    again = write_shard(path.with_name("000001.tar"), content, blocks=blocks)
    assert again.sha256 == entry.sha256


def test_rows_are_read_in_any_order(tmp_path):
    content = some_samples()
    write_shard(tmp_path / "a.tar", content)
    with ShardReader(tmp_path / "a.tar") as shard:
        assert len(shard) == 5
        assert [shard[i] for i in (4, 0, -2)] == [content[4], content[0], content[3]]
        with pytest.raises(IndexError):
            shard[5]


def test_members_are_plain_and_say_nothing_of_this_machine(tmp_path):
    write_shard(tmp_path / "a.tar", some_samples(1), blocks={"reinforcement": b"r"})
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == ["cat-0.png", "cat-0.txt", "cat-0.json", "__reinforcement__"]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname) for m in members} == {
            (0, 0, 0, 0o644, "", "")
        }
        caption = tar.extractfile("cat-0.txt")
        details = tar.extractfile("cat-0.json")
        assert caption is not None
        assert details is not None
        assert caption.read() == b"cat 0"
        assert sorted(json.load(details)) == ["captions", "meta", "synthetic"]
    assert (tmp_path / "a.tar").stat().st_size % tarfile.RECORDSIZE == 0


@pytest.mark.filterwarnings("ignore")  # of the other library
def test_webdataset_reads_it_and_skips_the_blocks(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    content = some_samples(4)
    path = tmp_path / "a.tar"
    write_shard(path, content, blocks={"reinforcement": b"r" * 1000})
    rows = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [row["__key__"] for row in rows] == [sample.key for sample in content]
    assert [row[sample.extension] for row, sample in zip(rows, content, strict=True)] == [
        sample.image for sample in content
    ]
    assert [row["txt"].decode() for row in rows] == [sample.captions[0] for sample in content]


def test_two_samples_of_one_key_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the key 'cat-0'"):
        write_shard(tmp_path / "a.tar", [*some_samples(2), *some_samples(1)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "Upper", "a.b", "a/b"])
def test_odd_block_names_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="block name"):
        write_shard(tmp_path / "a.tar", [], blocks={name: b""})


def test_a_shard_filled_by_hand_is_the_same(tmp_path):
    entry = write_shard(tmp_path / "a.tar", some_samples(), blocks={"b": b"123"})
    with open_shard(tmp_path / "b.tar") as shard:
        for sample in some_samples():
            shard.add(sample)
        assert len(shard) == 5
        shard.add_block("b", b"123")
    assert shard.entry().sha256 == entry.sha256


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1, exclude_max=True))
def test_a_shard_cut_anywhere_is_refused_by_name(tmp_path_factory, where):
    path = tmp_path_factory.mktemp("cut") / "000000.tar"
    write_shard(path, some_samples())
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    end_mark = last.offset_data + -(-last.size // 512) * 512 + 512
    path.write_bytes(path.read_bytes()[: int(where * end_mark)])
    with pytest.raises(ValueError, match=r"000000\.tar.* (cut|empty).*make or copy it again"):
        ShardReader(path)


@pytest.mark.parametrize("at", [0, 100, 150, 257, 300])
def test_a_damaged_header_is_refused_by_name(tmp_path, at):
    path = tmp_path / "000000.tar"
    write_shard(path, some_samples())
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"000000\.tar is not a shard or is damaged"):
        ShardReader(path)


def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"PK\x03\x04 a zip, perhaps" * 100)
    with pytest.raises(ValueError, match=r"a\.tar is not a shard"):
        ShardReader(path)
    (tmp_path / "cat.jpg").write_bytes(b"x")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(tmp_path / "cat.jpg", "cat.jpg")
    with pytest.raises(ValueError, match="not laid out as a pocketclip shard"):
        ShardReader(path)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(tmp_path, "folder", recursive=False)
    with pytest.raises(ValueError, match="not a plain file"):
        ShardReader(path)
    with pytest.raises(FileNotFoundError):
        ShardReader(tmp_path / "none.tar")


def test_damaged_details_are_refused_by_name(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, some_samples(1))
    path.write_bytes(path.read_bytes().replace(b'{"captions":[', b'{"Captions":['))
    with ShardReader(path) as shard, pytest.raises(ValueError, match=r"a\.tar: cat-0\.json is damaged"):
        shard[0]


def test_a_block_outlives_its_reader(tmp_path):
    write_shard(tmp_path / "a.tar", [], blocks={"numbers": b"12345"})
    shard = ShardReader(tmp_path / "a.tar")
    view = shard.block("numbers")
    assert view is not None
    assert view.readonly
    shard.close()
    assert bytes(view) == b"12345"


def test_a_closed_reader_can_be_closed_again(tmp_path):
    write_shard(tmp_path / "a.tar", some_samples(1))
    with ShardReader(tmp_path / "a.tar") as shard:
        shard.close()
