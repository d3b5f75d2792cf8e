"""Score files: what was found out about each sample of a shard, column by column, beside the shard.

    SPLIT/NAME.safetensors     one a shard, row i of every column belongs to the shard's sample i
        keys, key_ends         bytes of all keys, each with a line feed behind it, and where each ends
        id                     uint64 kept in int64: the first eight bytes of sha256(key)
        score/NAME             float32, cosine of picture and caption by teacher NAME; not a number: it has none
        width, height          int32, pixels of the upright picture; 0: it cannot be decoded
        chars, words, tokens   int32, of the main caption
        language               int32, its letters' codes; see `filter/language.py`
        listed                 int32, words of the caption that are on a list
        phash                  uint64 kept in int64; see `filter/phash.py`
        meta/NAME              float32, a number of the sample's own details; not a number: it is not there
        embedding/NAME/values  int8 rows of the picture, with embedding/NAME/scale

It is a safetensors file: a column is one run of bytes, so a rule reads its own columns and no others, in place, and any
reader of that format, in any language, reads them too; nothing in it can be code. (Of a .npz every column is unpacked
whole; parquet would bring a large dependency for what are plain arrays of numbers.)
"""

# Shape suffixes: N rows, D dimensions of an embedding.

from __future__ import annotations

import json
import mmap
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketclip.data.codec import PlainTable
from pocketclip.data.index import ShardIndex, read_index
from pocketclip.data.sample import JsonValue
from pocketclip.data.tables import Table, TableWriter, read_metadata, read_tables

FORMAT, VERSION = "pocketclip-scores", "1"
SUFFIX = ".safetensors"
_REMEDY = "delete it and run `pocketclip score` again"
_KINDS = {"float32": "F32", "int32": "I32", "int64": "I64", "int8": "I8"}


def score_bytes(columns: Mapping[str, np.ndarray], *, about: Mapping[str, JsonValue]) -> bytes:
    """The bytes of a score file, the same for the same values.

    Args:
        columns: by name; float32, int32, int64 or int8.
        about: what was scored, and with what.
    """
    texts = {"format": FORMAT, "version": VERSION, "about": json.dumps(about, sort_keys=True)}
    with TableWriter() as tables:
        for name, column in columns.items():
            tables.append(name, Table(kind=_KINDS[column.dtype.name], array=column))  # ty: ignore[invalid-argument-type]
        return b"".join(tables.finish(texts).chunks)


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """One file of a pool.

    Attributes:
        path: the file.
        name: of the shard that it belongs to, `SPLIT/NAME` without suffix.
        num_rows: samples of the shard.
        first: place of its first row in the pool.
        pool: number of the score folder it is in.
    """

    path: Path
    name: str
    num_rows: int
    first: int
    pool: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Columns of one file.

    Attributes:
        file: whose.
        columns: by name; float32 of everything but what its kind is given for in `filter/scores.py`.
    """

    file: ScoreFile
    columns: Mapping[str, np.ndarray]

    @property
    def rows(self) -> slice:
        """Where its rows are in the pool."""
        return slice(self.file.first, self.file.first + self.file.num_rows)


class Pool:
    """One or more score folders as one long table, read file by file.

    Args:
        folders: written by `pocketclip score`.
        split: of them.

    Attributes:
        files: in order.
        indexes: of the folders.
        num_rows: of all files.

    Raises:
        FileNotFoundError: a folder has no index.
        ValueError: a folder holds no scores, or has no such split.
    """

    def __init__(self, folders: Sequence[Path], *, split: str = "train") -> None:
        self.folders = [Path(folder) for folder in folders]
        self.indexes: list[ShardIndex] = []
        self.files: list[ScoreFile] = []
        self.num_rows = 0
        for number, folder in enumerate(self.folders):
            index = _read_score_index(folder)
            if split not in index.splits:
                raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(index.splits)}")
            self.indexes.append(index)
            for entry in index.splits[split]:
                file = ScoreFile(
                    path=folder / entry.file,
                    name=entry.file.removesuffix(SUFFIX),
                    num_rows=entry.num_samples,
                    first=self.num_rows,
                    pool=number,
                )
                self.files.append(file)
                self.num_rows += entry.num_samples
        if not self.num_rows:
            raise ValueError(f"{self.folders[0]} has no sample in split {split!r}")

    def columns(self) -> list[str]:
        """Names of the columns that all folders have, by their first files."""
        found: set[str] | None = None
        for number in range(len(self.folders)):
            first = next((file for file in self.files if file.pool == number), None)
            if first is not None:
                with open_tables(first.path) as tables:
                    found = set(tables) if found is None else found & set(tables)
        return sorted(found or ())

    def chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        """Columns of all files, one file after the other; copies, which outlive the file.

        Raises:
            ValueError: a file lacks a column, is damaged, or has another number of rows than its index says.
        """
        for file in self.files:
            with open_tables(file.path) as tables:
                yield Chunk(file=file, columns={name: column(tables, name, file=file) for name in names})

    def keys(self, file: ScoreFile, times_N: np.ndarray) -> bytes:
        """Keys of the rows of a file, each with a line feed behind it, as often as `times_N`, uint8 [N], says."""
        with open_tables(file.path) as tables:
            lengths_N = np.diff(column(tables, "key_ends", file=file), prepend=0)
            letters = tables["keys"].array.view(np.uint8)
            data = letters[np.repeat(times_N > 0, lengths_N)].tobytes()
        if times_N.max(initial=0) <= 1:
            return data
        again = times_N[times_N > 0]
        lines = data.splitlines(keepends=True)
        return b"".join(line * times for line, times in zip(lines, again.tolist(), strict=True))

    def about(self, file: ScoreFile) -> dict[str, JsonValue]:
        """What a file says of its shard."""
        with _opened(file.path) as (texts, _):
            return json.loads(texts["about"])


@contextmanager
def open_tables(path: Path) -> Generator[dict[str, Table], None, None]:
    """The columns of a score file in place.

    Raises:
        ValueError: it is damaged or no score file.
        FileNotFoundError: there is none.
    """
    with _opened(path) as (_, tables):
        yield tables


@contextmanager
def _opened(path: Path) -> Generator[tuple[dict[str, str], dict[str, Table]], None, None]:
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ValueError(f"{path} is empty: {_REMEDY}") from None
    view = memoryview(mapped)
    try:
        texts, tables = read_metadata(view), read_tables(view)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {_REMEDY}") from None
    if (texts.get("format"), texts.get("version")) != (FORMAT, VERSION):
        raise ValueError(f"{path} is no score file of version {VERSION}: {_REMEDY}")
    yield texts, tables  # the map closes with the last array that looks into it


def column(tables: Mapping[str, Table], name: str, *, file: ScoreFile) -> np.ndarray:
    """A copy of a column: `id` and `phash` as uint64, others as they are."""
    if name not in tables:
        raise ValueError(
            f"{file.path} has no column {name!r}, it has {', '.join(sorted(tables))}: score again with it"
        )
    array = np.array(tables[name].array)
    if name != "keys" and len(array) != file.num_rows:
        raise ValueError(
            f"{file.path} has {len(array)} rows of {name!r} and its index says {file.num_rows}: {_REMEDY}"
        )
    return array.view(np.uint64) if name in ("id", "phash") else array


def embedding(tables: Mapping[str, Table], teacher: str, *, file: ScoreFile) -> PlainTable:
    """The stored rows of a teacher for pictures."""
    parts = {part: f"embedding/{teacher}/{part}" for part in ("values", "scale")}
    lacking = [name for name in parts.values() if name not in tables]
    if lacking:
        raise ValueError(
            f"{file.path} has no embeddings of teacher {teacher!r}: score again with `--embedding {teacher}`"
        )
    return PlainTable({part: tables[name] for part, name in parts.items()}, codec="int8")


def _read_score_index(folder: Path) -> ShardIndex:
    try:
        index = read_index(folder)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no scores (no index.json): run `pocketclip score DATA {folder}`, again if it was "
            "interrupted"
        ) from None
    if index.config.get("verb") != "score":
        raise ValueError(f"{folder} holds shards, not scores: run `pocketclip score {folder} SCORES` first")
    return index
