"""Pictures to caption: files, folders of them, tars and packed folders, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.fields import make_key
from pocketclip.data.foreign.folder import is_picture
from pocketclip.data.foreign.tars import read_tars
from pocketclip.data.index import INDEX_FILE, Dropped, read_index, split_shards
from pocketclip.data.shard import ShardReader


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as it was found.

    Attributes:
        name: a path, or "shard: key".
        key: what captions are drawn by, and referred to; a shard's own, or the path's.
        image: encoded.
        captions: people's, where the source has them.
    """

    name: str
    key: str
    image: bytes = field(repr=False)
    captions: tuple[str, ...] = ()


def read_pictures(source: Path, *, splits: Sequence[str] = ()) -> Iterator[Picture | Dropped]:
    """The pictures of a source, in an order that does not depend on the file system.

    Args:
        source: a picture, a .tar, a folder of pictures (searched to any depth), or a packed folder.
        splits: of a packed folder; empty for all of them.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: it holds no pictures, or has no splits.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    packed = source.is_dir() and (source / INDEX_FILE).is_file()
    if splits and not packed:
        raise ValueError(f"{source} is no packed folder and has no splits: leave them out")
    if packed:
        yield from _packed(source, splits or tuple(read_index(source).splits))
    elif source.is_dir():
        paths = _pictures(source)
        if not paths:
            raise ValueError(f"{source} holds no pictures")
        for path in paths:
            yield _file(path, name=path.relative_to(source).as_posix())
    elif source.suffix.casefold() == ".tar":
        for item in read_tars([source], split_of=lambda _: ""):
            yield item if isinstance(item, Dropped) else _of_candidate(item)
    else:
        yield _file(source, name=str(source))


def _packed(source: Path, splits: Sequence[str]) -> Iterator[Picture]:
    for path in (path for split in splits for path in split_shards(source, split)):
        with ShardReader(path) as reader:
            for sample in reader:
                name = f"{path.relative_to(source)}: {sample.key}"
                yield Picture(name=name, key=sample.key, image=sample.image, captions=sample.captions)


def _pictures(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".") and is_picture(Path(name))]
    return sorted(found, key=os.fsencode)


def _file(path: Path, *, name: str) -> Picture | Dropped:
    try:
        return Picture(name=name, key=make_key(name), image=path.read_bytes())
    except OSError as error:
        return Dropped(source=name, reason=f"cannot be read: {error.strerror or error}")


def _of_candidate(item: Candidate) -> Picture:
    return Picture(name=item.source, key=item.key, image=item.image, captions=item.captions)
