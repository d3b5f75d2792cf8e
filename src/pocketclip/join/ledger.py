"""What became of every download, kept between runs in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_FORMAT = "pocketclip-downloads"
_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE downloads (
  uid TEXT PRIMARY KEY, url TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
  num_bytes INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""
_MANY = 500  # questions in one statement


@dataclass(frozen=True, kw_only=True)
class Download:
    """What became of one download.

    Attributes:
        uid: of the picture.
        url: its address.
        reason: why it failed; empty when it was got.
        may_pass: whether another attempt may succeed.
        attempts: in all runs together.
        num_bytes: of what was got.
        sha256: of what was got.
    """

    uid: str
    url: str
    reason: str = ""
    may_pass: bool = False
    attempts: int
    num_bytes: int = 0
    sha256: str = ""

    @property
    def status(self) -> str:
        """ok; failed: for good; again: another attempt may succeed."""
        if not self.reason:
            return "ok"
        return "again" if self.may_pass else "failed"


class Ledger:
    """The downloads of a folder. Used by one thread.

    Args:
        path: the file; made where there is none.

    Raises:
        ValueError: it is another file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ValueError(
                f"{path} is not a ledger of downloads, or damaged ({error}): delete it"
            ) from None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def get(self, uids: Iterable[str]) -> dict[str, Download]:
        """What is known of some pictures."""
        wanted, found = list(uids), {}
        for start in range(0, len(wanted), _MANY):
            some = wanted[start : start + _MANY]
            places = ",".join("?" * len(some))
            for row in self._db.execute(f"SELECT * FROM downloads WHERE uid IN ({places})", some):
                found[row[0]] = _download(row)
        return found

    def put(self, downloads: Iterable[Download]) -> None:
        """Notes what became of some downloads, in one transaction."""
        rows = [(d.uid, d.url, d.status, d.reason, d.attempts, d.num_bytes, d.sha256) for d in downloads]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO downloads VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def counts(self) -> dict[str, int]:
        """Number of downloads by status."""
        return dict(
            self._db.execute("SELECT status, count(*) FROM downloads GROUP BY status ORDER BY status")
        )

    def __iter__(self) -> Iterator[Download]:
        """All downloads by uid."""
        return map(_download, self._db.execute("SELECT * FROM downloads ORDER BY uid"))

    def _open(self) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            with self._db:
                self._db.executescript(_SCHEMA)
                self._db.executemany(
                    "INSERT INTO meta VALUES (?, ?)", [("format", _FORMAT), ("version", str(_VERSION))]
                )
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if (meta.get("format"), meta.get("version")) != (_FORMAT, str(_VERSION)):
            raise ValueError(f"{self._path} is not a ledger of downloads of this release: delete it")


def _download(row: tuple[str, str, str, str, int, int, str]) -> Download:
    uid, url, status, reason, attempts, num_bytes, sha256 = row
    return Download(
        uid=uid,
        url=url,
        reason=reason,
        may_pass=status == "again",
        attempts=attempts,
        num_bytes=num_bytes,
        sha256=sha256,
    )
