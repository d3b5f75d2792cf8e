"""Reading an index: the pictures, where they lie, their thumbnails, and their vectors.

SQLite holds the truth; every question sees one state of it, whatever is being indexed meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pocketclip.data.shard import ShardReader
from pocketclip.search.connections import Connections, check_length, close_all, no_index
from pocketclip.search.filters import conditions
from pocketclip.search.lock import is_locked
from pocketclip.search.schema import (
    FORMAT,
    PICTURES_FILE,
    THUMBNAILS_FILE,
    VERSION,
    Value,
    load_path,
    printable,
)
from pocketclip.search.vectors import Change, VectorReader

if TYPE_CHECKING:
    from pocketclip.search.filters import Filter

Kind = Literal["picture", "raw", "video"]

_MOST_MARKS = 900  # question marks of one statement that every SQLite takes
_ITEM = (
    "i.id, i.sha256, i.frame, i.at_s, i.kind, i.num_bytes, i.width, i.height, i.taken, i.latitude, i.longitude, "
    "i.caption, f.folder, f.path, f.key, f.modified"
)
_FIRST_FILE = (
    "items AS i JOIN files AS f ON f.id = (SELECT min(id) FROM entries AS e WHERE e.sha256 = i.sha256)"
)
_MOMENT = "coalesce(i.taken, i.modified)"


@dataclass(frozen=True, kw_only=True)
class IndexMeta:
    """What an index says of itself.

    Attributes:
        model: folder of the exported model, absolute.
        model_nearby: the same, relative to the index: both may be moved together.
        model_digest: of that model's manifest; vectors of other digests are never compared with these.
        embed_dim: D.
        folders: source folders, absolute, in the order in which they came.
    """

    model: Path
    model_nearby: Path
    model_digest: str
    embed_dim: int
    folders: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An item of an index, with the first of the places where it lies.

    Attributes:
        id: the same for as long as the content is in the index; never used again.
        folder: source folder, absolute.
        path: of the file, or of the shard that holds it, relative to `folder`.
        key: of the sample in the shard; None for a file.
        frame: 0 for a still, the number of the sampled frame for a video.
        at_s: seconds from the start of a video; None for a still.
        sha256: of the encoded file.
        kind: what it comes from.
        num_bytes: of the encoded file.
        width: pixels, upright.
        height: pixels, upright.
        taken: local time, ISO 8601 to the second, where the file says it.
        modified: of the file, UTC, ISO 8601 to the second.
        latitude: degrees, where the file says it.
        longitude: degrees.
        caption: where the source has one.
    """

    id: int
    folder: Path
    path: Path
    key: str | None
    frame: int
    at_s: float | None
    sha256: str
    kind: Kind
    num_bytes: int
    width: int
    height: int
    taken: str | None
    modified: str
    latitude: float | None
    longitude: float | None
    caption: str | None

    @property
    def name(self) -> str:
        """Short: the sample's key, or the file's name."""
        return self.key if self.key is not None else self.path.name

    @property
    def file(self) -> Path:
        """The file, or the shard, absolute."""
        return self.folder / self.path


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file of a source folder that is not in the index.

    Attributes:
        name: path, or "shard: key".
        reason: one sentence.
    """

    name: str
    reason: str


class ItemGoneError(ValueError):
    """There is no item of that number: it never was, or its last file was deleted."""


class IndexReader:
    """Reads an index. Any number of threads may ask while another process indexes.

    Attributes:
        path: folder of the index.
        meta: what it said of itself when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open an index.

        Raises:
            FileNotFoundError: there is none.
            ValueError: not an index, damaged, or of another version.
        """
        self.path = Path(path)
        if not (self.path / PICTURES_FILE).is_file():
            raise no_index(self.path)
        check_length(self.path)
        self._pictures = Connections(self.path, PICTURES_FILE)
        self._thumbnails = Connections(self.path, THUMBNAILS_FILE)
        self._closed = weakref.finalize(self, close_all, self._pictures, self._thumbnails)
        self.meta = self._read_meta()

    def close(self) -> None:
        """Lets go of the files; the reader cannot be asked any more."""
        self._closed()

    @cached_property
    def vectors(self) -> VectorReader:
        """The items' vectors; they follow what is indexed."""
        stored = self._all("SELECT value FROM meta WHERE key = 'rotation'", ())
        try:
            rotation = np.frombuffer(stored[0][0], dtype="<f4").reshape(
                self.meta.embed_dim, self.meta.embed_dim
            )
        except (IndexError, ValueError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged (rotation): index the pictures again") from error
        return VectorReader(self.path, rotation_DD=rotation, changes=self._changes)

    def generation(self) -> int:
        """Grows with every change that is committed."""
        return int(self._one("SELECT value FROM meta WHERE key = 'generation'"))

    def __len__(self) -> int:
        """Number of items."""
        return int(self._one("SELECT count(*) FROM items"))

    def items(self, ids: Sequence[int]) -> list[Picture]:
        """The items with these numbers, in this order.

        Raises:
            ItemGoneError: one is not there (any more).
        """
        found = self.find(ids)
        missing = [number for number in ids if number not in found]
        if missing:
            raise ItemGoneError(f"{self.path} has no item {missing[0]}")
        return [found[number] for number in ids]

    def find(self, ids: Sequence[int]) -> dict[int, Picture]:
        """Those items with these numbers that are there."""
        found: dict[int, Picture] = {}
        for begin in range(0, len(ids), _MOST_MARKS):
            some = [int(number) for number in ids[begin : begin + _MOST_MARKS]]
            marks = ", ".join("?" * len(some))
            rows = self._all(f"SELECT {_ITEM} FROM {_FIRST_FILE} WHERE i.id IN ({marks})", some)
            found |= {int(row[0]): _picture(row) for row in rows}
        return found

    def page(
        self, *, after: int = 0, limit: int = 100, order: Literal["newest", "added"] = "newest"
    ) -> list[Picture]:
        """Some items, from one on.

        Args:
            after: number of the last item of the page before; 0 for the first page.
            limit: most items.
            order: by time (taken, else modified), the latest first; or as they came into the index, the last first.

        Raises:
            ItemGoneError: `after` is not there any more.
        """
        condition, values = "1", list[Value]()
        if after and order == "added":
            condition, values = "i.id < ?", list[Value]([after])
        elif after:
            moment = self._all(f"SELECT {_MOMENT} FROM items AS i WHERE id = ?", [after])
            if not moment:
                raise ItemGoneError(f"{self.path} has no item {after}")
            condition, values = f"({_MOMENT}, i.id) < (?, ?)", [moment[0][0], after]
        by = f"{_MOMENT} DESC, i.id DESC" if order == "newest" else "i.id DESC"
        rows = self._all(
            f"SELECT {_ITEM} FROM {_FIRST_FILE} WHERE {condition} ORDER BY {by} LIMIT ?", [*values, limit]
        )
        return [_picture(row) for row in rows]

    def places(self, id: int) -> list[Path]:  # noqa: A002 the word everywhere
        """Every file, or shard, that holds an item, absolute; the first is the one that `items` names."""
        rows = self._all(
            "SELECT f.folder, f.path FROM items AS i JOIN files AS f ON f.sha256 = i.sha256 WHERE i.id = ? "
            "ORDER BY f.id",
            [id],
        )
        return [load_path(folder) / load_path(path) for folder, path in rows]

    def file(self, id: int) -> tuple[Path, str | None]:  # noqa: A002
        """Where an item lies: the file, or the shard, absolute, and the sample's key in the shard.

        Raises:
            ItemGoneError: it is not in the index.
        """
        (picture,) = self.items([id])
        return picture.file, picture.key

    def data(self, id: int) -> bytes:  # noqa: A002
        """The encoded file, or the shard's sample, of an item.

        Raises:
            ItemGoneError: it is not in the index.
            OSError: the file cannot be read.
            ValueError: the shard has no such sample any more.
        """
        path, key = self.file(id)
        if key is None:
            return path.read_bytes()
        shard = ShardReader(path)
        if key not in shard.keys:
            raise ValueError(f"{printable(path)} has no sample {key} any more: index the folder again")
        return shard[shard.keys.index(key)].image

    def thumbnail(self, id: int) -> bytes:  # noqa: A002
        """JPEG, longest side 320 pixels or less.

        Raises:
            ItemGoneError: there is none of this item.
        """
        with self._thumbnails.lent() as database:
            row = database.execute("SELECT jpeg FROM thumbnails WHERE item = ?", [id]).fetchone()
        if row is None:
            raise ItemGoneError(f"{self.path} has no item {id}")
        return bytes(row[0])

    def select(self, where: Filter) -> npt.NDArray[np.int64]:
        """Numbers of the items that a filter lets through, int64 [N], ascending."""
        condition, values = conditions(where)
        rows = self._all(f"SELECT i.id FROM items AS i WHERE {condition} ORDER BY i.id", values)
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def has(self, sha256: bytes) -> bool:
        """Whether this content is indexed."""
        return bool(self._all("SELECT 1 FROM items WHERE sha256 = ? LIMIT 1", [sha256]))

    def progress(self) -> tuple[int, int] | None:
        """Files that a pass of indexing has done, and has to do; None while nobody is indexing."""
        if not is_locked(self.path):
            return None
        noted = self._all("SELECT value FROM meta WHERE key = 'progress'", ())
        if not noted:
            return None
        done, _, total = str(noted[0][0]).partition("/")
        return int(done), int(total)

    def skipped(self) -> list[Skipped]:
        """The files that could not be used, by folder and path."""
        rows = self._all(
            "SELECT e.path, e.key, e.reason FROM entries AS e WHERE e.reason IS NOT NULL "
            "ORDER BY e.folder, CAST(e.path AS BLOB), e.id",
            (),
        )
        return [
            Skipped(name=printable(load_path(path)) + (f": {key}" if key else ""), reason=str(reason))
            for path, key, reason in rows
        ]

    def folders(self) -> list[str]:
        """Folders that hold indexed files, relative to their source folder, sorted; those whose names are UTF-8."""
        rows = self._all("SELECT DISTINCT path FROM entries WHERE sha256 IS NOT NULL", ())
        parents = {os.path.dirname(path) for (path,) in rows if isinstance(path, str)}  # noqa: PTH120 a million of them
        return sorted(parents - {""})

    def tags(self, ids: Sequence[int]) -> dict[int, list[tuple[str, float]]]:
        """Tags of items, with their scores, the best first."""
        found: dict[int, list[tuple[str, float]]] = {int(number): [] for number in ids}
        for begin in range(0, len(ids), _MOST_MARKS):
            some = [int(number) for number in ids[begin : begin + _MOST_MARKS]]
            marks = ", ".join("?" * len(some))
            rows = self._all(
                f"SELECT item, tag, score FROM tags WHERE item IN ({marks}) ORDER BY item, score DESC, tag",
                some,
            )
            for item, tag, score in rows:
                found[int(item)].append((str(tag), float(score)))
        return found

    def tag_counts(self) -> list[tuple[str, int]]:
        """Every tag and how many items have it, the most frequent first."""
        rows = self._all("SELECT tag, count(*) AS num FROM tags GROUP BY tag ORDER BY num DESC, tag", ())
        return [(str(tag), int(num)) for tag, num in rows]

    def _changes(self, *, since: int, last_id: int) -> Change | None:
        with self._pictures.lent() as database:
            database.execute("BEGIN")
            try:
                ((generation,),) = database.execute("SELECT value FROM meta WHERE key = 'generation'")
                if generation == since:
                    return None
                pairs = _integers(
                    database.execute("SELECT id, slot FROM items WHERE id > ? ORDER BY id", [last_id]),
                    width=2,
                )
                gone = _integers(
                    database.execute(
                        "SELECT item FROM removed WHERE generation > ? AND item <= ?", [since, last_id]
                    ),
                    width=1,
                )
            finally:
                database.execute("ROLLBACK")
        return Change(
            generation=generation, ids=pairs[:, 0].copy(), slots=pairs[:, 1].copy(), gone=gone[:, 0].copy()
        )

    def _read_meta(self) -> IndexMeta:
        values = dict(self._all("SELECT key, value FROM meta", ()))
        if values.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} holds an SQLite file but no index of pictures: choose another folder"
            )
        if values.get("version") != VERSION:
            raise ValueError(
                f"{self.path} is an index of version {values.get('version')} and this pocketclip reads version "
                f"{VERSION}: index the pictures again"
            )
        folders = self._all("SELECT path FROM folders ORDER BY id", ())
        try:
            return IndexMeta(
                model=load_path(values["model"]),
                model_nearby=load_path(values["model_nearby"]),
                model_digest=str(values["model_digest"]),
                embed_dim=int(values["embed_dim"] or 0),
                folders=tuple(load_path(path) for (path,) in folders),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged (meta: {error}): index the pictures again") from error

    def _all(self, question: str, values: Iterable[Value]) -> list[tuple]:
        with self._pictures.lent() as database:
            return database.execute(question, tuple(values)).fetchall()

    def _one(self, question: str) -> int | str:
        rows = self._all(question, ())
        if not rows:
            raise ValueError(f"{self.path} is damaged (meta): index the pictures again")
        return rows[0][0]


def _integers(rows: sqlite3.Cursor, *, width: int) -> npt.NDArray[np.int64]:
    """Rows of whole numbers, int64 [N, width], without a million tuples at a time."""
    parts = [np.empty((0, width), dtype=np.int64)]
    while some := rows.fetchmany(65_536):
        parts.append(np.array(some, dtype=np.int64))
    return np.concatenate(parts)


def _picture(row: tuple) -> Picture:
    (id_, sha256, frame, at_s, kind, num_bytes, width, height, taken, latitude, longitude, caption) = row[:12]
    folder, path, key, modified = row[12:]
    return Picture(
        id=id_,
        folder=load_path(folder),
        path=load_path(path),
        key=key or None,
        frame=frame,
        at_s=at_s,
        sha256=sha256.hex(),
        kind=kind,
        num_bytes=num_bytes,
        width=width,
        height=height,
        taken=taken,
        modified=modified,
        latitude=latitude,
        longitude=longitude,
        caption=caption,
    )
