"""Where pictures and videos come from: a folder of them, or the shards of a packed folder; nothing is read yet."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pocketclip.data.index import INDEX_FILE, read_index
from pocketclip.data.part import SUFFIX as PART_SUFFIX
from pocketclip.data.picture import EXTENSIONS
from pocketclip.data.shard import ShardReader

if TYPE_CHECKING:
    from pocketclip.search.store import Kind

PICTURE_SUFFIXES = frozenset(
    f".{extension}"
    for extension in (*EXTENSIONS.values(), "jpeg", "jpe", "tif", "jfif", "heic", "heif", "hif")
)
"""Endings (lower case) of files that are taken for pictures."""

RAW_SUFFIXES = frozenset(
    f".{extension}"
    for extension in (
        *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "gpr", "iiq", "kdc", "mef", "mos"),
        *("mrw", "nef", "nrw", "orf", "pef", "raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
    )
)
"""Endings of what cameras store before they make a picture of it."""

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"))
"""Endings of videos."""

SUFFIXES = PICTURE_SUFFIXES | RAW_SUFFIXES | VIDEO_SUFFIXES
"""Endings (lower case) of the files of a folder that are taken."""

MAX_READ_BYTES = 2**30
"""Larger files are not read into memory; videos need not be."""

_OPEN_SHARDS = 8  # shards are read in order: a few open ones are enough, whatever the limit on open files
_NOT_PEOPLES = frozenset(
    ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN")
)  # folders that systems leave about


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture or video of a source, not yet read.

    Attributes:
        path: of the file, or of the shard that holds it, relative to the source.
        key: of the sample in the shard; None for a file.
        kind: by its ending.
        num_bytes: of the file, or of the shard; 0 where it cannot be told.
        modified_ns: likewise, nanoseconds since 1970; -1 where it cannot be told.
        read: gives the encoded file and its caption, if it has one; may raise OSError or ValueError.
        file: to open it without reading all of it; None for a sample of a shard.
        unlisted: this is a folder or a shard that could not be looked into, and `read` raises the reason. What was
            known of its contents may still be there.
    """

    path: Path
    key: str | None
    kind: Kind
    num_bytes: int
    modified_ns: int
    read: Callable[[], tuple[bytes, str | None]]
    file: Path | None = None
    unlisted: bool = False

    @property
    def name(self) -> str:
        """How to call it in a message; printable whatever the file is called."""
        path = os.fsencode(self.path).decode("utf-8", "backslashreplace")
        return path if self.key is None else f"{path}: {self.key}"


def list_entries(source: Path, *, splits: Sequence[str] = ()) -> list[Entry]:
    """The pictures and videos of a source, as `walk` gives them, which must be one or more.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no pictures, or lacks a split.
    """
    entries = list(walk(source, splits=splits))
    if not entries:
        where = f"splits {', '.join(splits)} of {source}" if splits else str(source)
        raise ValueError(f"{where} holds no pictures ({', '.join(sorted(SUFFIXES))}): choose another folder")
    return entries


def walk(source: Path, *, splits: Sequence[str] = ()) -> Iterator[Entry]:
    """The pictures and videos of a source, in an order that does not depend on the file system.

    A folder is searched to any depth. Names with a dot in front, and folders that systems leave behind (`__MACOSX`,
    `@eaDir`, recycle bins), are passed over. Links to files are files. Links to folders outside are followed, each
    real folder once; a link to a folder that the source holds, or that holds the source, is not. What cannot be read,
    a folder, a link to nothing, a pipe, comes as an entry whose `read` says so. No file is opened.

    Args:
        source: a folder, or one written by `pocketclip pack`, `reinforce` or `filter`.
        splits: of a packed folder; empty for all of them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it lacks a split.
    """
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise FileNotFoundError(f"{source} {what}: give a folder of pictures, or a packed folder")
    packed = is_packed(source)
    if splits and not packed:
        raise ValueError(f"{source} is a folder of pictures and has no splits: leave them out")
    return _packed_entries(source, splits=splits) if packed else _Walk(source).entries()


def distinct(sources: Iterable[Path]) -> list[Path]:
    """Sources, absolute and in order, without those that others hold: each file is to be found once.

    A packed folder inside a folder of pictures stays: walking that one passes over its shards.
    """
    kept: list[Path] = []
    reals = {Path(source).absolute(): Path(source).resolve() for source in sources}
    for source, real in reals.items():
        if any(real == reals[other] for other in kept):
            continue
        inside = any(
            other_real in real.parents and not is_packed(other) for other, other_real in reals.items()
        )
        if not inside or is_packed(source):
            kept.append(source)
    return kept


def is_packed(source: Path) -> bool:
    """Whether a folder looks like one that `pocketclip pack` or its neighbours wrote."""
    shards = (next(source.glob(f"*/*{suffix}"), None) for suffix in (".tar", PART_SUFFIX))
    return (source / INDEX_FILE).is_file() and any(shard is not None for shard in shards)


def _packed_entries(source: Path, *, splits: Sequence[str]) -> Iterator[Entry]:
    index = read_index(source)
    lacking = [split for split in splits if split not in index.splits]
    if lacking:
        raise ValueError(f"{source} has no split {lacking[0]!r}; it has {', '.join(index.splits)}")
    files = [entry.file for split in splits or index.splits for entry in index.splits[split]]
    return _samples(source, files)


def _samples(source: Path, files: Sequence[str]) -> Iterator[Entry]:
    open_shard = lru_cache(maxsize=_OPEN_SHARDS)(ShardReader)

    def reader(path: Path, row: int) -> Callable[[], tuple[bytes, str | None]]:
        def read() -> tuple[bytes, str | None]:
            sample = open_shard(path)[row]
            return sample.image, sample.captions[0]

        return read

    for file in files:
        path = source / file
        try:
            status, keys = path.stat(), open_shard(path).keys
        except (OSError, ValueError) as error:
            yield _unlisted(Path(file), error)
            continue
        for row, key in enumerate(keys):
            yield Entry(
                path=Path(file),
                key=key,
                kind="picture",
                num_bytes=status.st_size,
                modified_ns=status.st_mtime_ns,
                read=reader(path, row),
            )


class _Walk:
    """One walk through a folder; remembers which real folders it has been in."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._real = source.resolve()
        self._been: set[tuple[int, int]] = set()

    def entries(self) -> Iterator[Entry]:
        waiting = [self._folder(Path())]  # a stack of its own: depth is the file system's matter
        while waiting:
            for found in waiting[-1]:
                if isinstance(found, Entry):
                    yield found
                else:
                    waiting.append(self._folder(found))
                    break
            else:
                waiting.pop()

    def _folder(self, folder: Path) -> Iterator[Entry | Path]:
        """Entries of a folder, and its subfolders, in the order of whole paths."""
        try:
            status = (self._source / folder).stat()
            if (status.st_dev, status.st_ino) in self._been:
                return
            self._been.add((status.st_dev, status.st_ino))
            with os.scandir(self._source / folder) as scan:
                found = sorted(
                    ((self._is_folder(item), item) for item in scan if _is_wanted(item)), key=_order
                )
        except OSError as error:
            yield _unlisted(folder, error)
            return
        for is_folder, item in found:
            path = folder / item.name
            if not is_folder:
                yield self._file(path, item)
            elif not item.is_symlink() or self._leads_out(path):
                yield path

    def _is_folder(self, item: os.DirEntry[str]) -> bool:
        try:
            return item.is_dir()
        except OSError:  # a link to itself
            return False

    def _leads_out(self, link: Path) -> bool:
        """Whether a link shows a folder that this walk does not find by itself, nor began in."""
        try:
            target = (self._source / link).resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        return not (target.is_relative_to(self._real) or self._real.is_relative_to(target))

    def _file(self, path: Path, item: os.DirEntry[str]) -> Entry:
        try:
            status = item.stat()
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a plain file", str(path))
        except OSError as error:
            return _entry(path, read=_raiser(error))
        return _entry(path, read=_reader(self._source / path), status=status, file=self._source / path)


def _is_wanted(item: os.DirEntry[str]) -> bool:
    if item.name.startswith(".") or item.name in _NOT_PEOPLES:
        return False
    try:
        if item.is_dir():
            return True
    except OSError:
        pass
    return os.path.splitext(item.name)[1].lower() in SUFFIXES  # noqa: PTH122 - a Path for each file is slow


def _order(found: tuple[bool, os.DirEntry[str]]) -> bytes:
    is_folder, item = found
    return os.fsencode(item.name) + b"/" * is_folder


def _entry(
    path: Path,
    *,
    read: Callable[[], tuple[bytes, str | None]],
    status: os.stat_result | None = None,
    file: Path | None = None,
) -> Entry:
    return Entry(
        path=path,
        key=None,
        kind=kind_of(path),
        num_bytes=0 if status is None else status.st_size,
        modified_ns=-1 if status is None else status.st_mtime_ns,
        read=read,
        file=file,
    )


def kind_of(path: Path) -> Kind:
    """What a file is taken for, by its ending."""
    suffix = path.suffix.lower()
    return "video" if suffix in VIDEO_SUFFIXES else "raw" if suffix in RAW_SUFFIXES else "picture"


def _unlisted(path: Path, error: OSError | ValueError) -> Entry:
    return Entry(
        path=path, key=None, kind="picture", num_bytes=0, modified_ns=-1, read=_raiser(error), unlisted=True
    )


def _raiser(error: OSError | ValueError) -> Callable[[], tuple[bytes, str | None]]:
    def read() -> tuple[bytes, str | None]:
        raise error

    return read


def _reader(path: Path) -> Callable[[], tuple[bytes, str | None]]:
    def read() -> tuple[bytes, str | None]:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            if num_bytes > MAX_READ_BYTES:
                raise OSError(errno.EFBIG, f"{num_bytes:,} bytes, more than {MAX_READ_BYTES:,}", str(path))
            return file.read(), None

    return read
