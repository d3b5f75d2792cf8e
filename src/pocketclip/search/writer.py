"""Writing an index: batches that are there whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketclip.data.publish import PublishError, cannot_write, publish_file
from pocketclip.search.encoding import random_rotation
from pocketclip.search.lock import locked
from pocketclip.search.schema import (
    FORMAT,
    LOCK_FILE,
    PICTURES_FILE,
    TABLES,
    THUMBNAIL_TABLE,
    THUMBNAILS_FILE,
    VERSION,
    Value,
    load_path,
    store_path,
)
from pocketclip.search.store import IndexMeta, Kind
from pocketclip.search.vectors import VectorWriter

_SWEPT_AT_ONCE = 256
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A file of a source folder, or a sample of a shard, as it was when it was looked at.

    Attributes:
        folder: source folder, absolute.
        path: relative to it.
        key: of the sample in the shard; None for a file.
        num_bytes: of the file, or of the shard.
        modified_ns: of the file, or of the shard; -1 where it should be looked at again next time.
    """

    folder: Path
    path: Path
    key: str | None
    num_bytes: int
    modified_ns: int

    def to_be_tried_again(self) -> Seen:
        """The same, but nobody will take the file for unchanged."""
        return replace(self, modified_ns=-1)

    @property
    def modified(self) -> str:
        """UTC, ISO 8601 to the second."""
        return datetime.fromtimestamp(max(self.modified_ns, 0) / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What one searchable picture, or one frame of a video, is; `Picture` explains the fields."""

    frame: int
    at_s: float | None
    kind: Kind
    num_bytes: int
    width: int
    height: int
    taken: str | None
    latitude: float | None
    longitude: float | None
    caption: str | None
    thumbnail: bytes


class IndexWriter:
    """Changes an index. Each method is one step that is done whole or not at all; see `open_writer`."""

    def __init__(self, path: Path, pictures: sqlite3.Connection, thumbnails: sqlite3.Connection) -> None:
        self._path = path
        self._pictures = pictures
        self._thumbnails = thumbnails
        values = dict(pictures.execute("SELECT key, value FROM meta").fetchall())
        self.embed_dim = int(values["embed_dim"])
        rotation = np.frombuffer(values["rotation"], dtype="<f4").reshape(self.embed_dim, self.embed_dim)
        self._vectors = VectorWriter(path, rotation_DD=rotation)
        self._progress: str | None = None
        self._free = [row[0] for row in pictures.execute("SELECT slot FROM free_slots ORDER BY slot DESC")]
        self._next = int(pictures.execute("SELECT coalesce(max(slot), -1) + 1 FROM items").fetchone()[0])
        self._next = max(self._next, self._free[0] + 1 if self._free else 0)

    def close(self) -> None:
        """Lets go of the vectors."""
        self._vectors.close()

    def folder(self, folder: Path) -> None:
        """Make a source folder known."""
        with self._change():
            self._pictures.execute("INSERT OR IGNORE INTO folders (path) VALUES (?)", [store_path(folder)])

    def knows(self, sha256: bytes) -> bool:
        """Whether this content is indexed."""
        found = self._pictures.execute("SELECT 1 FROM items WHERE sha256 = ? LIMIT 1", [sha256])
        return found.fetchone() is not None

    def _is_held(self, sha256: bytes) -> bool:
        found = self._pictures.execute("SELECT 1 FROM entries WHERE sha256 = ? LIMIT 1", [sha256])
        return found.fetchone() is not None

    def add(
        self,
        files: Sequence[tuple[Seen, bytes]],
        contents: Sequence[tuple[bytes, str, Content]],
        vectors_ND: npt.NDArray[np.float32],
        skipped: Sequence[tuple[Seen, str]] = (),
    ) -> None:
        """Add a batch: the vectors reach the disk first, then all the rest in one transaction.

        Args:
            files: what was seen, and the SHA-256 of its content, which is in the index or in `contents`.
            contents: SHA-256, time of the file's last change, and the item.
            vectors_ND: of `contents`, float32 [N, D], length 1.
            skipped: what cannot be used, and why.
        """
        slots = self._slots(len(contents))
        if contents:
            self._write(slots, vectors_ND)
        with self._change():
            ids = [
                self._add_item(slot, sha256, modified, content)
                for slot, (sha256, modified, content) in zip(slots, contents, strict=True)
            ]
            with _transaction(self._thumbnails):
                self._thumbnails.executemany(
                    "INSERT OR REPLACE INTO thumbnails VALUES (?, ?)",
                    [(id_, content.thumbnail) for id_, (_, _, content) in zip(ids, contents, strict=True)],
                )
            self._set_entries([(seen, sha256, None) for seen, sha256 in files])
            self._set_entries([(seen, None, reason) for seen, reason in skipped])

    def forget(self, entries: Iterable[int]) -> None:
        """Drop entries by number; `sweep` drops the items that nobody else holds."""
        with self._change():
            numbers = [(number,) for number in entries]
            self._pictures.executemany(
                "INSERT OR IGNORE INTO loose SELECT sha256 FROM entries WHERE id = ? AND sha256 IS NOT NULL",
                numbers,
            )
            self._pictures.executemany("DELETE FROM entries WHERE id = ?", numbers)

    def forget_folder(self, folder: Path) -> bool:
        """Drop a source folder with all its entries; tells whether it was known."""
        stored = store_path(folder)
        if self._pictures.execute("SELECT 1 FROM folders WHERE path = ?", [stored]).fetchone() is None:
            return False
        self.forget(number for number, _, _ in self.entries(folder).values())
        with self._change():
            self._pictures.execute("DELETE FROM folders WHERE path = ?", [stored])
        return True

    def sweep(self) -> int:
        """Drop the items whose content no file holds any more.

        Returns:
            How many went.
        """
        num = 0
        while True:
            some = self._pictures.execute("SELECT sha256 FROM loose LIMIT ?", [_SWEPT_AT_ONCE]).fetchall()
            if not some:
                return num
            with self._change():
                num += sum(self._drop(sha256) for (sha256,) in some if not self._is_held(sha256))
                self._pictures.executemany("DELETE FROM loose WHERE sha256 = ?", some)

    def progress(self, done: int, total: int) -> None:
        """Note how far a pass is, for readers; it is committed with the next change."""
        self._progress = f"{done}/{total}" if total else None

    def announce(self) -> None:
        """Have readers look at the files again."""
        with self._change():
            pass

    def set_tags(self, rows: Iterable[tuple[int, str, float]]) -> None:
        """Replace all tags: item, tag, score. Items that are gone are left out."""
        with self._change():
            self._pictures.execute("DELETE FROM tags")
            self._pictures.executemany(
                "INSERT OR REPLACE INTO tags SELECT id, ?2, ?3 FROM items WHERE id = ?1", rows
            )

    def entries(self, folder: Path) -> dict[tuple[Path, str | None], tuple[int, int, int]]:
        """All entries of a source folder: (path, key) -> (number, num_bytes, modified_ns)."""
        rows = self._pictures.execute(
            "SELECT e.path, e.key, e.id, e.num_bytes, e.modified_ns FROM entries AS e JOIN folders AS d "
            "ON d.id = e.folder WHERE d.path = ?",
            [store_path(folder)],
        )
        return {
            (load_path(path), key or None): (number, num_bytes, modified_ns)
            for path, key, number, num_bytes, modified_ns in rows
        }

    def _write(self, slots: Sequence[int], vectors_ND: npt.NDArray[np.float32]) -> None:
        try:
            self._vectors.write(slots, vectors_ND)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise _disk_full(self._path) from error

    def _slots(self, num: int) -> list[int]:
        """Slots that were free when this writer was opened, then new ones: a reader may still see what is freed now."""
        slots = [self._free.pop() for _ in range(min(num, len(self._free)))]
        fresh = range(self._next, self._next + num - len(slots))
        self._next = fresh.stop
        return [*slots, *fresh]

    def _add_item(self, slot: int, sha256: bytes, modified: str, content: Content) -> int:
        self._pictures.execute("DELETE FROM free_slots WHERE slot = ?", [slot])
        row = self._pictures.execute(
            "INSERT INTO items (sha256, frame, at_s, slot, kind, num_bytes, width, height, taken, modified, latitude, "
            "longitude, caption) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                sha256,
                content.frame,
                content.at_s,
                slot,
                content.kind,
                content.num_bytes,
                content.width,
                content.height,
                content.taken,
                modified,
                content.latitude,
                content.longitude,
                content.caption,
            ),
        )
        assert row.lastrowid is not None
        return row.lastrowid

    def _set_entries(self, rows: Sequence[tuple[Seen, bytes | None, str | None]]) -> None:
        for seen, sha256, reason in rows:
            place: tuple[Value, ...] = (store_path(seen.folder), store_path(seen.path), seen.key or "")
            self._pictures.execute(
                "INSERT OR IGNORE INTO loose SELECT sha256 FROM entries WHERE folder = (SELECT id FROM folders WHERE "
                "path = ?) AND path = ? AND key = ? AND sha256 IS NOT NULL AND sha256 IS NOT ?",
                (*place, sha256),
            )
            self._pictures.execute(
                "INSERT INTO entries (folder, path, key, num_bytes, modified_ns, modified, sha256, reason) "
                "VALUES ((SELECT id FROM folders WHERE path = ?), ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (folder, path, key) DO UPDATE SET num_bytes = excluded.num_bytes, "
                "modified_ns = excluded.modified_ns, modified = excluded.modified, sha256 = excluded.sha256, "
                "reason = excluded.reason",
                (*place, seen.num_bytes, seen.modified_ns, seen.modified, sha256, reason),
            )

    def _drop(self, sha256: bytes) -> int:
        gone = self._pictures.execute(
            "DELETE FROM items WHERE sha256 = ? RETURNING id, slot", [sha256]
        ).fetchall()
        ids = [(id_,) for id_, _ in gone]
        self._pictures.executemany("DELETE FROM tags WHERE item = ?", ids)
        self._pictures.executemany("INSERT INTO free_slots VALUES (?)", [(slot,) for _, slot in gone])
        self._pictures.executemany(
            "INSERT INTO removed SELECT ?, value + 1 FROM meta WHERE key = 'generation'", ids
        )
        with _transaction(self._thumbnails):
            self._thumbnails.executemany("DELETE FROM thumbnails WHERE item = ?", ids)
        return len(gone)

    @contextmanager
    def _change(self) -> Generator[None, None, None]:
        try:
            with _transaction(self._pictures):
                yield
                self._pictures.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
                self._pictures.execute("DELETE FROM meta WHERE key = 'progress'")
                if self._progress:
                    self._pictures.execute("INSERT INTO meta VALUES ('progress', ?)", [self._progress])
        except sqlite3.DatabaseError as error:
            raise _cannot_write(self._path, error) from error


@contextmanager
def open_writer(path: Path, meta: IndexMeta) -> Generator[IndexWriter, None, None]:
    """Opens an index for writing, or begins one; only one process may at a time.

    Args:
        path: folder of the index; made if it is not there.
        meta: of a new index; an existing one must have the same model.

    Raises:
        BlockingIOError: another process is indexing into it.
        ValueError: the index was made with another model, or is damaged.
        OSError: it cannot be written.
    """
    with cannot_write(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if not (path / PICTURES_FILE).is_file():
            _begin(path, meta)
        with (
            closing(_open(path / PICTURES_FILE)) as pictures,
            closing(_open(path / THUMBNAILS_FILE)) as thumbnails,
        ):
            try:
                thumbnails.executescript(THUMBNAIL_TABLE)
                writer = IndexWriter(path, pictures, thumbnails)
            except sqlite3.DatabaseError as error:
                raise _cannot_write(path, error) from error
            with closing(writer):
                yield writer


def _begin(path: Path, meta: IndexMeta) -> None:
    try:
        with publish_file(path / PICTURES_FILE) as file:
            file.write(_empty(meta))
    except BaseException:
        (path / LOCK_FILE).unlink(missing_ok=True)
        with suppress(OSError):  # it holds what an earlier run left
            path.rmdir()
        raise


def _empty(meta: IndexMeta) -> bytes:
    """The database of a new index, which appears whole or not at all."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(TABLES)
        database.executemany("INSERT INTO meta VALUES (?, ?)", _meta_rows(meta))
        return database.serialize()


def _open(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        raise _cannot_write(path.parent, error) from error
    return database


@contextmanager
def _transaction(database: sqlite3.Connection) -> Generator[None, None, None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _cannot_write(path: Path, error: sqlite3.DatabaseError) -> OSError | ValueError:
    code = error.sqlite_errorcode if hasattr(error, "sqlite_errorcode") else 0
    if code in _FULL:
        return _disk_full(path)
    if isinstance(error, sqlite3.OperationalError):
        return OSError(errno.EIO, str(error), str(path))
    return ValueError(f"{path} is damaged ({error}): remove it and index the pictures again")


def _disk_full(path: Path) -> PublishError:
    error = PublishError(
        f"disk full while writing {path}: free some space and run the same command again; what was indexed stays"
    )
    error.errno = errno.ENOSPC
    return error


def _meta_rows(meta: IndexMeta) -> list[tuple[str, Value]]:
    return [
        ("format", FORMAT),
        ("version", VERSION),
        ("generation", 0),
        ("model", store_path(meta.model)),
        ("model_nearby", store_path(meta.model_nearby)),
        ("model_digest", meta.model_digest),
        ("embed_dim", meta.embed_dim),
        ("rotation", random_rotation(meta.embed_dim).astype("<f4").tobytes()),
    ]
