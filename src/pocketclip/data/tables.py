"""Named arrays in one safetensors file: written chunk by chunk, read in place, refused where anything is off."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np

Kind = Literal["F32", "BF16", "U16", "I8", "I32", "I64"]
"""Types of a table, as safetensors names them."""

_DTYPES: dict[Kind, str] = {
    "F32": "<f4",
    "BF16": "<u2",
    "U16": "<u2",
    "I8": "<i1",
    "I32": "<i4",
    "I64": "<i8",
}
_METADATA = "__metadata__"
_IN_MEMORY = 16 << 20  # bytes of a table that is being made, before it moves to a file
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Table:
    """One array of a file.

    Attributes:
        kind: its type; bfloat16 is kept as its 16 bits.
        array: read-only where it was read in place.
    """

    kind: Kind
    array: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Block:
    """A file's bytes before they are read.

    Attributes:
        num_bytes: of all of them.
        chunks: the bytes in order; to be read once, while the writer is open.
    """

    num_bytes: int
    chunks: Iterator[bytes]


class TableWriter:
    """Collects tables that grow row by row; what is there waits in temporary files.

    Args:
        folder: for the temporary files; None takes the system's.
    """

    def __init__(self, *, folder: Path | None = None) -> None:
        self._folder = folder
        self._files = ExitStack()
        self._tables: dict[str, _Growing] = {}

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def append(self, name: str, table: Table) -> None:
        """Appends rows (the first dimension) to the table `name`."""
        if name not in self._tables:
            folder = str(self._folder) if self._folder else None
            spool = SpooledTemporaryFile(_IN_MEMORY, dir=folder)  # noqa: SIM115
            self._tables[name] = _Growing(
                file=self._files.enter_context(spool), kind=table.kind, row_shape=table.array.shape[1:]
            )
        self._tables[name].append(table)

    def put(self, name: str, table: Table) -> None:
        """Adds a table that is whole; one of that name takes its place."""
        if name in self._tables:
            self.drop(name)
        self.append(name, table)

    def rows(self, name: str, *, num: int) -> Iterator[np.ndarray]:
        """The rows of the table `name` from the first on, `num` at a time."""
        return self._tables[name].rows(num)

    def drop(self, name: str) -> None:
        """Forgets the table `name`: it does not go into the file."""
        self._tables.pop(name).file.close()

    def finish(self, metadata: Mapping[str, str]) -> Block:
        """The file, the same bytes for the same values: the library keeps metadata in a hash map's changing order."""
        layout: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))}
        offset = 0
        # Wide types first keeps every table aligned to its item size.
        order = sorted(self._tables, key=lambda name: (-self._tables[name].dtype.itemsize, name))
        for name in order:
            table = self._tables[name]
            layout[name] = {
                "dtype": table.kind,
                "shape": [table.num_rows, *table.row_shape],
                "data_offsets": [offset, offset + table.num_bytes],
            }
            offset += table.num_bytes
        text = json.dumps(layout, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        chunks = chain([head], chain.from_iterable(self._tables[name].chunks() for name in order))
        return Block(num_bytes=len(head) + offset, chunks=chunks)


@dataclass(kw_only=True)
class _Growing:
    file: IO[bytes]
    kind: Kind
    row_shape: tuple[int, ...]
    num_rows: int = 0

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_DTYPES[self.kind])

    @property
    def num_bytes(self) -> int:
        return self.num_rows * math.prod(self.row_shape) * self.dtype.itemsize

    def append(self, table: Table) -> None:
        assert (table.kind, table.array.dtype, table.array.shape[1:]) == (
            self.kind,
            self.dtype,
            self.row_shape,
        )
        self.file.seek(0, os.SEEK_END)  # rows may have been read
        self.file.write(np.ascontiguousarray(table.array).data)
        self.num_rows += len(table.array)

    def rows(self, num: int) -> Iterator[np.ndarray]:
        self.file.seek(0)
        row_bytes = math.prod(self.row_shape) * self.dtype.itemsize
        for start in range(0, self.num_rows, num):
            size = min(num, self.num_rows - start)
            yield np.frombuffer(self.file.read(size * row_bytes), self.dtype).reshape(size, *self.row_shape)

    def chunks(self) -> Iterator[bytes]:
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK):
            yield chunk


def read_metadata(block: memoryview) -> dict[str, str]:
    """The texts in a file's header.

    Raises:
        ValueError: the bytes have no such header.
    """
    layout, _ = _layout(block)
    metadata = layout.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its header is damaged")
    return metadata


def read_tables(block: memoryview) -> dict[str, Table]:
    """The tables of a file, without a copy.

    Raises:
        ValueError: the bytes are not such a file; says what is wrong with which table.
    """
    layout, body = _layout(block)
    layout.pop(_METADATA, None)
    places = {name: _place(entry, name=name) for name, entry in layout.items()}
    end = 0
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].stop)):
        if place.stop > len(body):
            raise ValueError(f"table {name} is cut short")
        if place.start != end:
            raise ValueError(f"table {name} overlaps another or leaves a gap")
        end = place.stop
    if end != len(body):
        raise ValueError("bytes are left over behind its tables")
    return {name: place.table(body) for name, place in places.items()}


def _layout(block: memoryview) -> tuple[dict[str, Any], memoryview]:
    length = int.from_bytes(block[:8], "little")
    if len(block) < 8 or length > len(block) - 8 or length % 8:
        raise ValueError("its header is damaged")
    try:
        layout = json.loads(bytes(block[8 : 8 + length]))
    except (ValueError, RecursionError):
        raise ValueError("its header is damaged") from None
    if not isinstance(layout, dict):
        raise ValueError("its header is damaged")
    return layout, block[8 + length :]


@dataclass(frozen=True, kw_only=True)
class _Place:
    kind: Kind
    shape: tuple[int, ...]
    start: int
    stop: int

    def table(self, body: memoryview) -> Table:
        flat = np.frombuffer(body[self.start : self.stop], dtype=_DTYPES[self.kind])
        return Table(kind=self.kind, array=flat.reshape(self.shape))


def _place(entry: object, *, name: str) -> _Place:
    damaged = ValueError(f"the header of table {name} is damaged")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise damaged
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES or not _are_counts(shape):
        raise damaged
    if not _are_counts(offsets) or len(offsets) != 2:
        raise damaged
    start, stop = offsets
    item_bytes = np.dtype(_DTYPES[kind]).itemsize
    if stop - start != math.prod(shape) * item_bytes or start % item_bytes:
        raise ValueError(f"table {name} has offsets {start} to {stop}, which do not fit its shape {shape}")
    return _Place(kind=kind, shape=tuple(shape), start=start, stop=stop)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
