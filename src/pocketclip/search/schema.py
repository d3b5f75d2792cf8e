"""How an index lies on disk: the names in its folder, the tables, paths as SQLite values."""

from __future__ import annotations

import os
from pathlib import Path

FORMAT = "pocketclip-index"
VERSION = "2"

PICTURES_FILE = "pictures.sqlite"
THUMBNAILS_FILE = "thumbnails.sqlite"
VECTORS_FILE = "vectors.i8"
FINE_FILE = "vectors.fine"
LOCK_FILE = "lock"

OUR_FILES = frozenset(
    (
        *(
            f"{name}{end}"
            for name in (PICTURES_FILE, THUMBNAILS_FILE)
            for end in ("", "-wal", "-shm", "-journal")
        ),
        *(VECTORS_FILE, FINE_FILE, LOCK_FILE, f".{PICTURES_FILE}.partial"),
    )
)
"""What a run that was stopped at its very beginning may have left."""

Value = str | int | float | bytes | None
"""What SQLite holds."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE folders (id INTEGER PRIMARY KEY, path NOT NULL UNIQUE);
CREATE TABLE entries (
  id INTEGER PRIMARY KEY, folder INTEGER NOT NULL REFERENCES folders, path NOT NULL, key TEXT NOT NULL DEFAULT '',
  num_bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL, modified TEXT NOT NULL, sha256 BLOB, reason TEXT,
  UNIQUE (folder, path, key), CHECK ((sha256 IS NULL) = (reason IS NOT NULL))
);
CREATE INDEX entries_of_content ON entries (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX entries_skipped ON entries (id) WHERE reason IS NOT NULL;
CREATE TABLE items (
  id INTEGER PRIMARY KEY AUTOINCREMENT, sha256 BLOB NOT NULL, frame INTEGER NOT NULL, at_s REAL,
  slot INTEGER NOT NULL UNIQUE, kind TEXT NOT NULL, num_bytes INTEGER NOT NULL,
  width INTEGER NOT NULL, height INTEGER NOT NULL, taken TEXT, modified TEXT NOT NULL,
  latitude REAL, longitude REAL, caption TEXT, UNIQUE (sha256, frame)
);
CREATE INDEX items_by_time ON items (coalesce(taken, modified) DESC, id DESC);
CREATE TABLE free_slots (slot INTEGER PRIMARY KEY);
CREATE TABLE loose (sha256 BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE removed (item INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE INDEX removed_lately ON removed (generation);
CREATE TABLE tags (
  item INTEGER NOT NULL REFERENCES items, tag TEXT NOT NULL, score REAL NOT NULL, PRIMARY KEY (item, tag)
) WITHOUT ROWID;
CREATE INDEX tags_by_name ON tags (tag, item);
CREATE VIEW files AS
  SELECT e.id, d.path AS folder, e.path, e.key, e.num_bytes, e.modified, e.sha256
  FROM entries AS e JOIN folders AS d ON d.id = e.folder WHERE e.sha256 IS NOT NULL;
"""
"""`entries` holds every file (and sample of a shard) that was seen: its content, or why it was skipped. An item is
searchable content: a picture, or a frame of a video, whose vector lies in `slot`. `loose` holds contents that a file
had and has no more: whether another has them is known at the end of a pass. `removed` tells readers which items went,
and with which generation. Filters ask `items` and `files`.
"""

THUMBNAIL_TABLE = "CREATE TABLE IF NOT EXISTS thumbnails (item INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);"


def store_path(path: Path) -> str | bytes:
    """Text where the path is UTF-8, its bytes otherwise: SQLite keeps both, text stays readable."""
    name = path.as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def load_path(stored: Value) -> Path:
    """The path that `store_path` was given.

    Raises:
        TypeError: neither text nor bytes.
    """
    if not isinstance(stored, str | bytes):
        raise TypeError(f"{stored!r} is not a path")
    return Path(os.fsdecode(stored))


def printable(path: Path) -> str:
    """A path for a message; what is not UTF-8 is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def default_index() -> Path:
    """Where an index lies that nobody named: `$POCKETCLIP_INDEX`, else `pocketclip/index` in the user's data folder."""
    if named := os.environ.get("POCKETCLIP_INDEX"):
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pocketclip" / "index"
