"""Where pictures come from: a folder of them, or the shards of a packed folder; read one by one, lazily."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pocketclip.data.index import INDEX_FILE, read_index, split_shards
from pocketclip.data.picture import EXTENSIONS
from pocketclip.data.shard import ShardReader

SUFFIXES = frozenset(f".{extension}" for extension in (*EXTENSIONS.values(), "jpeg", "jpe", "tif", "jfif"))
"""Endings (lower case) of the files of a folder that are taken for pictures."""

_OPEN_SHARDS = 8  # shards are read in order: a few open ones are enough, whatever the limit on open files


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of a source, not yet read.

    Attributes:
        path: of the picture, or of the shard that holds it, relative to the source.
        key: of the sample in the shard; None for a file.
        read: gives the encoded picture and its caption, if it has one; may raise OSError or ValueError.
    """

    path: Path
    key: str | None
    read: Callable[[], tuple[bytes, str | None]]

    @property
    def name(self) -> str:
        """How to call it in a message; printable whatever the file is called."""
        path = os.fsencode(self.path).decode("utf-8", "backslashreplace")
        return path if self.key is None else f"{path}: {self.key}"


def list_entries(source: Path, *, splits: Sequence[str] = ()) -> list[Entry]:
    """The pictures of a source, in an order that does not depend on the file system.

    Args:
        source: a folder of pictures (searched to any depth; hidden files, and folders behind links, are left
            out), or a folder written by `pocketclip pack`.
        splits: of a packed folder; empty for all of them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no pictures, or lacks a split.
    """
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise FileNotFoundError(f"{source} {what}: give a folder of pictures, or a packed folder")
    packed = _is_packed(source)
    if splits and not packed:
        raise ValueError(f"{source} is a folder of pictures and has no splits: leave them out")
    entries = _packed_entries(source, splits=splits) if packed else _folder_entries(source)
    if not entries:
        where = f"splits {', '.join(splits)} of {source}" if splits else str(source)
        raise ValueError(f"{where} holds no pictures ({', '.join(sorted(SUFFIXES))}): choose another folder")
    return entries


def _is_packed(source: Path) -> bool:
    return (source / INDEX_FILE).is_file() and next(source.glob("*/*.tar"), None) is not None


def _packed_entries(source: Path, *, splits: Sequence[str]) -> list[Entry]:
    names = splits or tuple(read_index(source).splits)
    open_shard = lru_cache(maxsize=_OPEN_SHARDS)(ShardReader)

    def reader(path: Path, row: int) -> Callable[[], tuple[bytes, str | None]]:
        def read() -> tuple[bytes, str | None]:
            sample = open_shard(path)[row]
            return sample.image, sample.captions[0]

        return read

    return [
        Entry(path=path.relative_to(source), key=key, read=reader(path, row))
        for split in names
        for path in split_shards(source, split)
        for row, key in enumerate(open_shard(path).keys)
    ]


def _folder_entries(source: Path) -> list[Entry]:
    found: list[Path] = []
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    return [
        Entry(path=path.relative_to(source), key=None, read=_file_reader(path))
        for path in sorted(found, key=os.fsencode)
    ]


def _file_reader(path: Path) -> Callable[[], tuple[bytes, str | None]]:
    def read() -> tuple[bytes, str | None]:
        return path.read_bytes(), None

    return read
