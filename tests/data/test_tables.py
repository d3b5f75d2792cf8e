"""Tables in a safetensors file: every tool reads them back, and no damage of the header gets through."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from pocketclip.data.tables import Table, TableWriter, read_metadata, read_tables

DTYPES = {"F32": np.float32, "U16": np.uint16, "I8": np.int8, "I32": np.int32, "I64": np.int64}


@st.composite
def tables(draw):
    kinds = draw(
        st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from(sorted(DTYPES)), max_size=5)
    )
    shapes = nps.array_shapes(max_dims=3, max_side=4, min_side=0)
    return {
        name: Table(kind=kind, array=draw(nps.arrays(DTYPES[kind], draw(shapes))))
        for name, kind in kinds.items()
        if name != "__metadata__"
    }


def written(tables, *, metadata=None):
    with TableWriter() as writer:
        for name, table in tables.items():
            writer.append(name, table)
        block = writer.finish(metadata or {"format": "test"})
        data = b"".join(block.chunks)
    assert len(data) == block.num_bytes
    return data


@given(tables())
def test_what_was_written_is_read_here_and_by_the_library(tables):
    data = written(tables)
    read = read_tables(memoryview(data))
    library = safetensors.numpy.load(data)
    assert read.keys() == library.keys() == tables.keys()
    assert read_metadata(memoryview(data)) == {"format": "test"}
    for name, table in tables.items():
        assert read[name].kind == table.kind
        np.testing.assert_array_equal(read[name].array, table.array)
        np.testing.assert_array_equal(library[name], table.array)


@given(tables(), st.integers(1, 5))
def test_tables_that_grow_are_the_same_bytes(tables, num):
    tables = {name: table for name, table in tables.items() if len(table.array)}
    with TableWriter() as writer:
        for name, table in tables.items():
            for start in range(0, len(table.array), num):
                writer.append(name, Table(kind=table.kind, array=table.array[start : start + num]))
            parts = list(writer.rows(name, num=num))
            assert all(len(part) == num for part in parts[:-1])
            np.testing.assert_array_equal(np.concatenate(parts), table.array)
        grown = b"".join(writer.finish({"format": "test"}).chunks)
    assert grown == written(tables)


def test_a_table_is_put_anew_or_dropped():
    one, other = (Table(kind="I8", array=np.full(3, value, np.int8)) for value in (1, 2))
    with TableWriter() as writer:
        writer.put("a", one)
        writer.put("a", other)
        writer.put("b", one)
        writer.drop("b")
        read = read_tables(memoryview(b"".join(writer.finish({}).chunks)))
    assert read.keys() == {"a"}
    np.testing.assert_array_equal(read["a"].array, other.array)


def small():
    return written(
        {
            "a": Table(kind="F32", array=np.arange(6, dtype=np.float32).reshape(2, 3)),
            "b": Table(kind="I8", array=np.arange(4, dtype=np.int8)),
        }
    )


def changed(change):
    """The small file with another header."""
    data = small()
    length = int.from_bytes(data[:8], "little")
    layout = json.loads(data[8 : 8 + length])
    text = json.dumps(change(layout) or layout).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def entry(table, **fields):
    return lambda layout: layout[table].update(fields)


FAULTS = {
    "a gap": (entry("b", data_offsets=[25, 29]), "gap|cut short"),
    "an overlap": (entry("b", data_offsets=[20, 24]), "overlaps"),
    "cut short": (entry("b", data_offsets=[24, 1024], shape=[1000]), "table b is cut short"),
    "left over": (lambda layout: layout.pop("b") and None, "left over"),
    "negative": (entry("a", data_offsets=[-4, 20]), "header of table a"),
    "backwards": (entry("a", data_offsets=[24, 0]), "table a has offsets"),
    "off its type": (entry("a", data_offsets=[1, 25]), "table a has offsets"),
    "of three offsets": (entry("a", data_offsets=[0, 24, 24]), "header of table a"),
    "of no offsets": (entry("a", data_offsets=None), "header of table a"),
    "of an unknown type": (entry("a", dtype="F33"), "header of table a"),
    "of a list for a type": (entry("a", dtype=["F32"]), "header of table a"),
    "another type": (entry("a", dtype="I64"), "table a has offsets"),
    "another shape": (entry("a", shape=[3, 3]), "table a has offsets"),
    "a negative shape": (entry("a", shape=[-2, -3]), "header of table a"),
    "a true shape": (entry("a", shape=[True, 6]), "header of table a"),
    "a shape of parts": (entry("a", shape=[2.0, 3]), "header of table a"),
    "a huge shape": (entry("a", shape=[10**30, 10**30]), "table a has offsets"),
    "one field more": (entry("a", more=1), "header of table a"),
    "no fields": (lambda layout: {**layout, "a": [1]}, "header of table a"),
    "no table": (lambda layout: [layout], "its header is damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_header_that_lies_is_refused(fault):
    change, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        read_tables(memoryview(changed(change)))


@pytest.mark.parametrize("metadata", [[], {"format": 1}, "text"])
def test_metadata_are_texts_by_name(metadata):
    with pytest.raises(ValueError, match="header is damaged"):
        read_metadata(memoryview(changed(lambda layout: {**layout, "__metadata__": metadata})))


def test_a_header_too_deep_to_parse_is_refused():
    text = b"[" * 200_000
    with pytest.raises(ValueError, match="header is damaged"):
        read_tables(memoryview(len(text).to_bytes(8, "little") + text))


@pytest.mark.parametrize("length", [0, 3, 7, 2**40, 2**64 - 1])
def test_a_length_that_cannot_be_is_refused(length):
    with pytest.raises(ValueError, match="header is damaged"):
        read_tables(memoryview(length.to_bytes(8, "little") + small()[8:]))


@given(st.integers(0, len(small()) - 1))
def test_a_cut_file_is_refused(keep):
    with pytest.raises(ValueError, match="damaged|cut short"):
        read_tables(memoryview(small()[:keep]))
