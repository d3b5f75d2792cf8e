"""Where the pictures are: an index of tars and folders by uid and by address, in one SQLite file.

Tars are read once, without their pictures; afterwards a sample is one seek away, in whichever tar it is. The tables are
on the disk, because sets of pictures have more uids than a machine has room for.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from pocketclip.data.foreign.fields import (
    CAPTION_FIELDS,
    find_field,
    parse_captions,
    parse_record,
    parse_text,
)
from pocketclip.data.foreign.folder import is_picture
from pocketclip.data.foreign.source import expand, is_pattern
from pocketclip.data.foreign.tars import Group, captions_of, picture_of, read_group, read_groups
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

UID_FIELDS = ("uid", "key", "__key__", "id")
"""Names of the column of uids in a table of captions, the first found counts."""

_SCHEMA = """
CREATE TABLE meta (digest TEXT NOT NULL);
CREATE TABLE files (id INTEGER PRIMARY KEY, path BLOB NOT NULL);
CREATE TABLE images (
  name TEXT PRIMARY KEY, file INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE captions (uid TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""
_DETAILS = ("json", "url.txt")  # files of a sample that say which it is
_ROWS = 10_000  # in one transaction


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture, and what came with it.

    Attributes:
        image: the encoded picture.
        captions: that came with it, perhaps none.
        sha256: of the picture as it was downloaded, where that is recorded with it.
        is_checked: whether its hash was compared before.
    """

    image: bytes = field(repr=False)
    captions: tuple[str, ...] = ()
    sha256: str | None = None
    is_checked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a picture is: a sample of a tar, or a file of its own (then `stop` is 0)."""

    path: Path
    start: int
    stop: int


class ImageIndex:
    """Pictures by uid and address. Used by one thread, but for `read`.

    Args:
        path: of the index, made where there is none, or made again where the sources have changed.
        sources: tars as a folder, a pattern or a file; folders of picture files.
        captions: a table of ground-truth captions, or None.
        report: called with the number of samples that were found since the last call.

    Raises:
        FileNotFoundError: a source is not there.
        ValueError: a source holds no pictures, or the table is none.
    """

    def __init__(
        self,
        path: Path,
        *,
        sources: Sequence[str],
        captions: Path | None,
        report: Callable[[int], object] = lambda _: None,
    ) -> None:
        files = [file for source in sources for file in _files(source)]
        digest = _digest([*files, *([captions] if captions else [])])
        self._report = report
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_whole(path, digest=digest):
            path.unlink(missing_ok=True)
            self._db = sqlite3.connect(path)
            self._db.executescript(_SCHEMA)
            self._fill(files, captions=captions)
            self._check(sources, captions=captions)
            with self._db:
                self._db.execute("INSERT INTO meta VALUES (?)", (digest,))
        else:
            self._db = sqlite3.connect(path)

    def __enter__(self) -> ImageIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def __len__(self) -> int:
        (num,) = self._db.execute("SELECT count(*) FROM images WHERE name LIKE 'uid:%'").fetchone()
        return num

    def find(self, uid: str, *, url: str | None) -> Place | None:
        """Where a picture is, by its uid or else by its address."""
        for name in (f"uid:{uid}", f"url:{url}"):
            row = self._db.execute(
                "SELECT path, start, stop FROM images JOIN files ON file = id WHERE name = ?", (name,)
            ).fetchone()
            if row is not None:
                path, start, stop = row
                return Place(path=Path(os.fsdecode(path)), start=start, stop=stop)
        return None

    def caption(self, uid: str) -> str | None:
        """The caption of a picture in the table of captions."""
        row = self._db.execute("SELECT text FROM captions WHERE uid = ?", (uid,)).fetchone()
        return row[0] if row is not None else None

    def _check(self, sources: Sequence[str], *, captions: Path | None) -> None:
        if sources and not len(self):
            raise ValueError(f"{', '.join(sources)}: there is no picture in them")
        if captions is not None and self._db.execute("SELECT 1 FROM captions").fetchone() is None:
            raise ValueError(f"{captions} has no captions: it needs the columns uid and text")

    def _fill(self, files: Sequence[Path], *, captions: Path | None) -> None:
        for path in files:
            with self._db:
                cursor = self._db.execute("INSERT INTO files (path) VALUES (?)", (os.fsencode(path),))
            if path.suffix.casefold() == ".tar":
                self._insert(_tar_rows(path), file=cursor.lastrowid or 0)
            else:
                self._insert(iter([(f"uid:{path.stem}", 0, 0)]), file=cursor.lastrowid or 0)
        if captions is not None:
            rows = iter(_caption_rows(captions))
            while some := list(islice(rows, _ROWS)):
                with self._db:
                    self._db.executemany("INSERT OR IGNORE INTO captions VALUES (?, ?)", some)

    def _insert(self, rows: Iterator[tuple[str, int, int]], *, file: int) -> None:
        while some := list(islice(rows, _ROWS)):
            with self._db:
                self._db.executemany(
                    "INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)",
                    [(name, file, start, stop) for name, start, stop in some],
                )
            self._report(len({start for _, start, _ in some}))


def read(place: Place) -> Found:
    """The picture at a place.

    Raises:
        ValueError: it is not there any more, or what stands beside it is damaged.
        OSError: the file cannot be read.
    """
    if not place.stop:
        sidecar = place.path.with_suffix(".txt")
        texts = parse_text(sidecar.read_bytes()).splitlines() if sidecar.is_file() else []
        return Found(image=place.path.read_bytes(), captions=parse_captions([*texts]))
    group = read_group(place.path, start=place.start, end=place.stop)
    picture = picture_of(group.members)
    if picture is None:
        raise ValueError(f"{place.path} has no picture at byte {place.start:,}: it was changed")
    record = _record(group)
    captions, _ = captions_of(group.members)
    sha256 = record.get("sha256")
    return Found(
        image=picture.data,
        captions=captions,
        sha256=sha256.lower() if isinstance(sha256, str) and sha256 else None,
    )


def _files(source: str) -> list[Path]:
    """Tars of a source, or picture files where it has no tars; in order."""
    if is_pattern(source):
        paths = [Path(name) for name in expand(source)]
        gone = next((path for path in paths if not path.is_file()), None)
        if gone is not None:
            raise FileNotFoundError(f"{gone} is not there, though {source} names it")
        return paths
    if Path(source).is_file():
        return [Path(source)]
    if not Path(source).is_dir():
        raise FileNotFoundError(f"{source}: no such file or folder")
    tars: list[Path] = []
    pictures: list[Path] = []
    for folder, subfolders, names in os.walk(source, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
        for name in sorted(name for name in names if not name.startswith(".")):
            if name.casefold().endswith(".tar"):
                tars.append(Path(folder, name))
            elif is_picture(PurePosixPath(name)):
                pictures.append(Path(folder, name))
    if not tars and not pictures:
        raise ValueError(f"{source} holds neither tars nor pictures")
    return tars or pictures


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(os.fsencode(path) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _is_whole(path: Path, *, digest: str) -> bool:
    if not path.exists():
        return False
    database = sqlite3.connect(path)
    try:
        return database.execute("SELECT digest FROM meta").fetchall() == [(digest,)]
    except sqlite3.DatabaseError:  # cut off while it was made
        return False
    finally:
        database.close()


def _tar_rows(path: Path) -> Iterator[tuple[str, int, int]]:
    """Names of the samples of a tar that have a picture, each with its place."""
    for group in read_groups(path, only=_DETAILS):
        if isinstance(group, Dropped) or picture_of(group.members) is None:
            continue
        start, stop = group.members[0].start, group.members[-1].end
        try:
            record = _record(group)
        except ValueError:  # its key still tells which it is
            record = {}
        meta = record.get("meta")
        details = {**(meta if isinstance(meta, dict) else {}), **record}
        for name in ("uid", "url"):
            value = details.get(name)
            if isinstance(value, str) and value:
                yield f"{name}:{value.strip()}", start, stop
        url = group.data("url.txt")
        if url:
            yield f"url:{url.decode(errors='replace').strip()}", start, stop
        yield f"uid:{PurePosixPath(group.key).name}", start, stop


def _record(group: Group) -> dict[str, JsonValue]:
    data = group.data("json")
    return parse_record(data) if data else {}


def _caption_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Uid and first caption of every row of a table that has both."""
    try:
        for row in _table_rows(path):
            uid_field, text_field = find_field(row, UID_FIELDS), find_field(row, CAPTION_FIELDS)
            if uid_field is None or text_field is None:
                continue
            captions = parse_captions(row[text_field])
            if captions and row[uid_field] is not None:
                yield str(row[uid_field]), captions[0]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of captions ({error})") from None


def _table_rows(path: Path) -> Iterator[dict[str, JsonValue]]:
    match path.suffix.casefold():
        case ".jsonl":
            with path.open("rb") as file:
                yield from (parse_record(line) for line in file if line.strip())
        case ".csv" | ".tsv":
            delimiter = "\t" if path.suffix.casefold() == ".tsv" else ","
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in csv.DictReader(file, delimiter=delimiter):
                    yield {name: value for name, value in row.items() if isinstance(name, str)}
        case ".parquet":
            yield from _parquet_rows(path)
        case _:
            raise ValueError("it is none of .jsonl, .csv, .tsv and .parquet")


def _parquet_rows(path: Path) -> Iterator[dict[str, JsonValue]]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError("reading parquet needs pyarrow: run pip install 'pocketclip[parquet]'") from error
    with pq.ParquetFile(path) as table:
        names = table.schema_arrow.names
        columns = [find_field(names, UID_FIELDS), find_field(names, CAPTION_FIELDS)]
        if None in columns:
            raise ValueError(f"it has the columns {', '.join(names)}, not uid and text")
        for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
            yield from batch.to_pylist()
