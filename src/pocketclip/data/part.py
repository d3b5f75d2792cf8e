"""A part of a shard without a copy: a small file that names another shard and the numbers of some of its samples.

    NAME.rows    safetensors; metadata: format, version, shard (its path, relative to this file's folder), num_bytes
                 rows      int64 [N]    numbers of samples in that shard; one may come again

Opened as a shard (`data/shard.py`) it has those samples and, where there is one, their reinforcement.
"""

# Shape suffixes: N samples.

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketclip.data.tables import Table, TableWriter, read_metadata, read_tables

SUFFIX = ".rows"
"""Of such files, by which they are told."""

_FORMAT, _VERSION = "pocketclip-part", "1"
_REMEDY = "run `pocketclip filter` again"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some samples of a shard.

    Attributes:
        shard: whose they are.
        rows_N: their numbers in it, int64.
    """

    shard: Path
    rows_N: np.ndarray


def shard_file(path: Path) -> Path:
    """The file that holds the samples of a shard: itself, or the one that a part names."""
    return read_part(path).shard if path.suffix == SUFFIX else path


def part_bytes(rows_N: np.ndarray, *, shard: str, num_bytes: int, sha256: str) -> bytes:
    """The bytes of a part, the same for the same values.

    Args:
        rows_N: numbers of samples, in the order in which they are to come.
        shard: path of the shard, relative to the folder in which the part will lie, with `/`.
        num_bytes: size of the shard.
        sha256: of the shard, so that another shard's part has other bytes.
    """
    with TableWriter() as tables:
        tables.append("rows", Table(kind="I64", array=np.ascontiguousarray(rows_N, np.int64)))
        texts = {"format": _FORMAT, "version": _VERSION, "shard": shard, "sha256": sha256}
        return b"".join(tables.finish({**texts, "num_bytes": str(num_bytes)}).chunks)


def read_part(path: Path) -> Part:
    """Reads a part, and looks whether its shard is there.

    Raises:
        ValueError: it is damaged, of another version, or its shard is of another size.
        FileNotFoundError: there is no such file, or its shard is gone.
    """
    block = memoryview(path.read_bytes())
    try:
        texts, tables = read_metadata(block), read_tables(block)
        found = (texts.get("format"), texts.get("version"))
        rows = tables["rows"]
        shard, num_bytes = path.parent / texts["shard"], int(texts["num_bytes"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_REMEDY}") from None
    if found != (_FORMAT, _VERSION):
        raise ValueError(f"{path} is {found[0]!r} version {found[1]!r}, not a part of a shard: {_REMEDY}")
    if rows.kind != "I64" or rows.array.ndim != 1 or (rows.array < 0).any():
        raise ValueError(f"{path} is damaged (its rows are no numbers of samples): {_REMEDY}")
    if not shard.is_file():
        raise FileNotFoundError(
            f"{path} names {shard}, which is not there: put it back, or move both folders together"
        )
    if shard.stat().st_size != num_bytes:
        raise ValueError(
            f"{shard} has {shard.stat().st_size:,} bytes and {path} was made when it had {num_bytes:,}: {_REMEDY}"
        )
    return Part(shard=shard, rows_N=rows.array)
