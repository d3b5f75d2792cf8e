"""Places found at once are those that reading member by member finds; what is odd is left to the latter."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import shape_samples

from pocketclip.data.places import end_of_samples, find_places, key_at
from pocketclip.data.shard import ShardReader, _members, _read_members, write_shard


def written(folder, num, **blocks):
    path = folder / "000000.tar"
    write_shard(path, shape_samples(num), blocks=blocks)
    return path


@given(num=st.integers(0, 5), with_block=st.booleans())
def test_places_are_those_of_the_members(tmp_path_factory, num, with_block):
    blocks = {"numbers": b"1" * 700} if with_block else {}
    path = written(tmp_path_factory.mktemp("places"), num, **blocks)
    view = memoryview(path.read_bytes())
    expected, found_blocks = _read_members(_members(view, path=path), path=path)
    places = find_places(view)
    np.testing.assert_array_equal(places, expected)
    assert [key_at(view, start) for start in places[:, 0].tolist()] == [
        (sample.key, "png") for sample in shape_samples(num)
    ]
    assert set(found_blocks) == set(blocks)
    assert not with_block or found_blocks["numbers"].start == end_of_samples(places) + 512


@given(at=st.integers(0, 511), member=st.integers(0, 5), bit=st.integers(0, 7))
def test_a_header_with_a_wrong_bit_is_never_taken(tmp_path_factory, at, member, bit):
    path = written(tmp_path_factory.mktemp("wrong"), 2)
    data = bytearray(path.read_bytes())
    start = [m.start for m in _members(memoryview(data), path=path)][member] - 512
    data[start + at] ^= 1 << bit
    assert find_places(memoryview(data)) is None or 148 <= at < 156  # the checksum's own padding


def test_no_place_lies_beyond_the_end_of_a_file_that_is_cut(tmp_path):
    data = written(tmp_path, 2).read_bytes()
    whole = find_places(memoryview(data))
    for length in range(512, end_of_samples(whole), 256):
        found = find_places(memoryview(data)[:length])
        if found is not None:  # cut between two samples: the missing end mark tells the reader
            assert end_of_samples(found) == length
            np.testing.assert_array_equal(found, whole[: len(found)])


def test_a_reader_that_is_told_the_places_reads_the_same(tmp_path):
    path = written(tmp_path, 4, numbers=b"123")
    with ShardReader(path) as first, ShardReader(path, places=first.places) as second:
        assert list(second) == list(first)
        assert second.keys == first.keys
        assert bytes(second.block("numbers")) == b"123"
