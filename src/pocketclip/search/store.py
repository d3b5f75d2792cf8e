"""One SQLite file: the pictures of an index, their vectors, and which model made them.

Shapes: N pictures, D embedding.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

FORMAT = "pocketclip-index"
VERSION = "1"

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pictures (
  id INTEGER PRIMARY KEY, path NOT NULL, key TEXT, sha256 TEXT NOT NULL,
  width INTEGER NOT NULL, height INTEGER NOT NULL, caption TEXT, thumbnail BLOB NOT NULL
);
CREATE TABLE vectors (id INTEGER PRIMARY KEY REFERENCES pictures, vector BLOB NOT NULL);
CREATE TABLE skipped (name TEXT NOT NULL, reason TEXT NOT NULL);
"""
_PICTURE = "path, key, sha256, width, height, caption, thumbnail"
_VECTOR_TYPE = np.dtype("<f4")
_MOST_MARKS = 900  # question marks of one statement that every SQLite takes


@dataclass(frozen=True, kw_only=True)
class IndexMeta:
    """What an index says of itself.

    Attributes:
        source: folder that was indexed, absolute.
        model: folder of the exported model, absolute.
        model_nearby: the same, relative to the index: both may be moved together.
        model_digest: of that model's manifest; vectors of other digests are never compared with these.
        embed_dim: D.
    """

    source: Path
    model: Path
    model_nearby: Path
    model_digest: str
    embed_dim: int


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of an index.

    Attributes:
        path: of the picture, or of the shard that holds it, relative to the source.
        key: of the sample in the shard; None for a file.
        sha256: of the encoded picture.
        width: pixels, upright.
        height: pixels, upright.
        caption: where the source has one.
        thumbnail: JPEG.
    """

    path: Path
    key: str | None
    sha256: str
    width: int
    height: int
    caption: str | None
    thumbnail: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A picture of the source that is not in the index.

    Attributes:
        name: path, or "shard: key".
        reason: one sentence.
    """

    name: str
    reason: str


class IndexWriter:
    """Appends to an index under construction; see `write_index_file`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, pictures: Sequence[Picture], vectors_ND: npt.NDArray[np.float32]) -> None:
        """Pictures and their vectors float32 [N, D], in this order."""
        assert len(pictures) == len(vectors_ND)
        for picture, vector in zip(pictures, vectors_ND.astype(_VECTOR_TYPE, copy=False), strict=True):
            cursor = self._database.execute(
                f"INSERT INTO pictures ({_PICTURE}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    _store_path(picture.path),
                    picture.key,
                    picture.sha256,
                    picture.width,
                    picture.height,
                    picture.caption,
                    picture.thumbnail,
                ),
            )
            self._database.execute("INSERT INTO vectors VALUES (?, ?)", (cursor.lastrowid, vector.tobytes()))

    def skip(self, skipped: Skipped) -> None:
        """A picture that could not be used."""
        self._database.execute("INSERT INTO skipped VALUES (?, ?)", (skipped.name, skipped.reason))


@contextmanager
def create(path: Path, meta: IndexMeta) -> Generator[IndexWriter, None, None]:
    """Fills an empty file with an index. Its bytes depend on its content only.

    Raises:
        OSError: it cannot be written, for instance because the disk is full.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            # the file is published whole by its owner: neither a journal nor flushes are of use here
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.executescript(_SCHEMA)
            database.execute("BEGIN")
            database.executemany("INSERT INTO meta VALUES (?, ?)", _meta_rows(meta).items())
            yield IndexWriter(database)
            database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        full = error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(path)) from error


class IndexReader:
    """Reads an index; opens the file anew for each question, so it serves any thread.

    Attributes:
        path: of the index.
        meta: what it says of itself.
    """

    def __init__(self, path: Path) -> None:
        """Open an index.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file is not an index, is damaged, or of another version.
        """
        self.path = path
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is not there: run `pocketclip index PICTURES {path} --model EXPORTED` first"
            )
        with self._rows("SELECT key, value FROM meta") as rows:
            values = {str(key): value for key, value in rows}
        if values.get("format") != FORMAT:
            raise ValueError(f"{path} is an SQLite file but not an index of pictures: choose another file")
        if values.get("version") != VERSION:
            raise ValueError(
                f"{path} is an index of version {values.get('version')} and this pocketclip reads version "
                f"{VERSION}: index the pictures again"
            )
        try:
            self.meta = IndexMeta(
                source=_load_path(values["source"]),
                model=_load_path(values["model"]),
                model_nearby=_load_path(values["model_nearby"]),
                model_digest=str(values["model_digest"]),
                embed_dim=int(values["embed_dim"] or 0),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged (meta: {error}): index the pictures again") from error

    def vectors(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """All ids [N], ascending, and their vectors float32 [N, D].

        Raises:
            ValueError: a vector is damaged.
        """
        num_bytes = self.meta.embed_dim * _VECTOR_TYPE.itemsize
        ids: list[int] = []
        blobs: list[bytes] = []
        with self._rows("SELECT id, vector FROM vectors ORDER BY id") as rows:
            for number, blob in rows:
                assert isinstance(number, int)
                if not isinstance(blob, bytes) or len(blob) != num_bytes:
                    raise ValueError(f"{self.path} is damaged (vector {number}): index the pictures again")
                ids.append(number)
                blobs.append(blob)
        flat = np.frombuffer(b"".join(blobs), dtype=_VECTOR_TYPE)
        vectors_ND = flat.reshape(len(ids), self.meta.embed_dim).astype(np.float32, copy=False)
        return np.array(ids, dtype=np.int64), vectors_ND

    def pictures(self, ids: Sequence[int]) -> list[Picture]:
        """The pictures with these ids, in this order.

        Raises:
            ValueError: an id is not there.
        """
        found: dict[int, Picture] = {}
        for begin in range(0, len(ids), _MOST_MARKS):
            some = ids[begin : begin + _MOST_MARKS]
            marks = ", ".join("?" * len(some))
            with self._rows(f"SELECT id, {_PICTURE} FROM pictures WHERE id IN ({marks})", some) as rows:
                found |= {int(row[0] or 0): _picture(row[1:]) for row in rows}
        missing = [number for number in ids if number not in found]
        if missing:
            raise ValueError(f"{self.path} is damaged (no picture {missing[0]}): index the pictures again")
        return [found[number] for number in ids]

    def skipped(self) -> list[Skipped]:
        """The pictures of the source that could not be used, in its order."""
        with self._rows("SELECT name, reason FROM skipped ORDER BY rowid") as rows:
            return [Skipped(name=str(name), reason=str(reason)) for name, reason in rows]

    @contextmanager
    def _rows(
        self, question: str, values: Iterable[int] = ()
    ) -> Generator[Iterable[tuple[str | int | bytes | None, ...]], None, None]:
        address = f"file:{quote(os.fsencode(self.path.absolute()))}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(address, uri=True)) as database:
                yield database.execute(question, tuple(values))
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path} is not a whole index of pictures ({error}): index the pictures again"
            ) from error


def _picture(row: Sequence[str | int | bytes | None]) -> Picture:
    path, key, sha256, width, height, caption, thumbnail = row
    assert isinstance(width, int)
    assert isinstance(height, int)
    assert isinstance(thumbnail, bytes)
    return Picture(
        path=_load_path(path),
        key=None if key is None else str(key),
        sha256=str(sha256),
        width=width,
        height=height,
        caption=None if caption is None else str(caption),
        thumbnail=thumbnail,
    )


def _meta_rows(meta: IndexMeta) -> Mapping[str, str | bytes]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "source": _store_path(meta.source),
        "model": _store_path(meta.model),
        "model_nearby": _store_path(meta.model_nearby),
        "model_digest": meta.model_digest,
        "embed_dim": str(meta.embed_dim),
    }


def _store_path(path: Path) -> str | bytes:
    """Text where the path is UTF-8, its bytes otherwise: SQLite keeps both, text stays readable."""
    name = path.as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _load_path(stored: str | int | bytes | None) -> Path:
    if not isinstance(stored, str | bytes):
        raise TypeError(f"{stored!r} is not a path")
    return Path(os.fsdecode(stored))
