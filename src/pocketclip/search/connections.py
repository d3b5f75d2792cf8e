"""Connections to an index's databases that only read, and that several threads share."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from pocketclip.search.filters import km_between
from pocketclip.search.schema import PICTURES_FILE

_BUSY_S = 30.0


class Connections:
    """Read-only connections to one SQLite file; a thread takes one and gives it back."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / name
        self._idle: deque[sqlite3.Connection] = deque()

    @contextmanager
    def lent(self) -> Generator[sqlite3.Connection, None, None]:
        try:
            database, is_kept = self._taken()
            try:
                yield database
            finally:
                if is_kept:
                    self._idle.append(database)
                else:
                    database.close()
        except sqlite3.DatabaseError as error:
            if not self._path.is_file():
                raise no_index(self._folder) from error
            raise ValueError(
                f"{self._path} is not a whole index of pictures ({error}): remove {self._folder} and index the "
                f"pictures again"
            ) from error

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _taken(self) -> tuple[sqlite3.Connection, bool]:
        """A connection, and whether it may be used again."""
        with suppress(IndexError):
            return self._idle.pop(), True
        address = f"file:{quote(os.fsencode(self._path.absolute()))}?mode=ro"
        database, is_kept = _connect(address), True
        try:
            database.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            database.close()
            if _has_log(self._path):
                raise
            # SQLite cannot write its notes on readers here; as long as nobody indexes it can do without
            database, is_kept = _connect(f"{address}&immutable=1"), False
        database.create_function("km_between", 4, km_between, deterministic=True)
        return database, is_kept


def _has_log(path: Path) -> bool:
    """Whether some of a database may lie in its write-ahead log."""
    log = path.with_name(f"{path.name}-wal")
    return log.is_file() and log.stat().st_size > 0


def check_length(folder: Path) -> None:
    """A file that was cut is noticed at once, not when the missing part is asked for (SQLite file format, 1.3)."""
    path = folder / PICTURES_FILE
    with path.open("rb") as file:
        header = file.read(32)
    page_size = int.from_bytes(header[16:18], "big")
    num_pages = int.from_bytes(header[28:32], "big")
    page_size = 65_536 if page_size == 1 else page_size
    if (
        header.startswith(b"SQLite format 3")
        and path.stat().st_size < page_size * num_pages
        and not _has_log(path)
    ):
        raise ValueError(f"{path} was cut: remove {folder} and index the pictures again")


def _connect(address: str) -> sqlite3.Connection:
    return sqlite3.connect(
        address,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=_BUSY_S,
        cached_statements=64,
    )


def close_all(*connections: Connections) -> None:
    """Lets go of their files."""
    for some in connections:
        some.close()


def no_index(path: Path) -> FileNotFoundError:
    """The error of a folder without an index; it says how to make one."""
    return FileNotFoundError(
        f"{path} is not an index: run `pocketclip index PICTURES --out {path} --model EXPORTED` first"
    )
