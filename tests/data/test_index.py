"""An index gives back what was written, and a folder that is not whole is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.index import Dropped, ShardIndex, read_index, split_shards, write_index
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardEntry, write_shard

names = st.text(min_size=1, max_size=20)
entries = st.builds(
    ShardEntry,
    file=names,
    num_samples=st.integers(0, 10**9),
    num_bytes=st.integers(0, 10**12),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)
indexes = st.builds(
    ShardIndex,
    source=names,
    splits=st.dictionaries(names, st.lists(entries, max_size=3).map(tuple), max_size=3),
    dropped=st.lists(st.builds(Dropped, source=names, reason=names), max_size=3).map(tuple),
    licences=st.dictionaries(names, st.integers(0, 10**6), max_size=3),
    config=st.dictionaries(names, st.none() | st.integers() | names | st.lists(names), max_size=3),
    attribution=st.lists(names, max_size=2).map(tuple),
)


@pytest.fixture
def packed(tmp_path):
    sample = Sample(key="a", image=b"x", extension="png", captions=("a",))
    splits = {split: (write_shard(tmp_path / split / "000000.tar", [sample]),) for split in ("train", "test")}
    write_index(tmp_path, ShardIndex(source="here", splits=splits))
    return tmp_path


@given(indexes)
def test_round_trip(tmp_path_factory, index):
    folder = tmp_path_factory.mktemp("index")
    write_index(folder, index)
    assert read_index(folder) == index


def test_file_names_that_are_not_utf8_survive(tmp_path):
    index = ShardIndex(source="here", splits={}, dropped=(Dropped(source="caf\udce9.jpg", reason="no"),))
    write_index(tmp_path, index)
    assert read_index(tmp_path) == index
    (tmp_path / "index.json").read_text(encoding="utf-8")


def test_counts(packed):
    index = read_index(packed)
    assert (index.num_samples(), index.num_samples("train")) == (2, 1)


def test_shards_of_a_split(packed):
    assert split_shards(packed, "train") == [packed / "train" / "000000.tar"]
    with pytest.raises(ValueError, match="has no split 'validation'; it has train, test"):
        split_shards(packed, "validation")


def test_a_missing_or_cut_shard_is_named(packed):
    shard = packed / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"000000\.tar has 10,239 bytes and the index says 10,240"):
        split_shards(packed, "train")
    shard.unlink()
    with pytest.raises(ValueError, match=r"000000\.tar is missing"):
        split_shards(packed, "train")


def test_a_folder_without_index_is_not_packed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a packed folder.*pocketclip pack"):
        read_index(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"not a packed folder"):
        read_index(tmp_path / "none")


def _without(name):
    return lambda content: {key: value for key, value in content.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: "{", "damaged"),
        (lambda _: [], "not the index of a packed folder"),
        (lambda _: {"pages": []}, "not the index of a packed folder"),
        (lambda c: {**c, "version": 99}, "version 99 and this pocketclip reads version 1"),
        (lambda c: {**c, "colour": 1, "size": 2}, "unknown fields colour, size"),
        (_without("splits"), "splits is not a mapping"),
        (_without("dropped"), "dropped is not a list"),
        (_without("source"), "source is not a text"),
        (lambda c: {**c, "splits": {"train": [{"file": "x"}]}}, "a row of splits"),
        (lambda c: {**c, "licences": {"CC0": -1}}, "licences of CC0 is not a count"),
    ],
)
def test_a_damaged_index_says_where(packed, change, words):
    path = packed / "index.json"
    content = change(json.loads(path.read_text()))
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=words) as error:
        read_index(packed)
    assert str(path) in str(error.value)
