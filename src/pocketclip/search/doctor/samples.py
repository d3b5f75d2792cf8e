"""The samples of any shard set, one after the other, with whatever is wrong with them, and again by their place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pocketclip.data.foreign.source import is_packed, is_pattern, list_files
from pocketclip.data.foreign.tars import Group, captions_of, picture_of, read_group, read_groups
from pocketclip.data.index import Dropped, read_index
from pocketclip.data.shard import ShardReader

_SPLIT = re.compile(r"(?:^|[^a-z])(train|validation|valid|val|test|dev|eval)(?:[^a-z]|$)")
_OPEN_SHARDS = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sample lies: its row in one of our shards, or its bytes in a tar.

    Attributes:
        path: of the shard.
        row: in a shard of ours; None in a plain tar.
        start: of the sample's first file in the tar.
        end: of its last.
    """

    path: Path
    row: int | None = None
    start: int = 0
    end: int = 0


@dataclass(frozen=True, kw_only=True)
class ShardSample:
    """A sample as it lies in a shard; nothing of it is checked.

    Attributes:
        split: by the folder's index, the folder's name or the shard's; "all" where nothing tells.
        shard: its file, relative to the source.
        key: of the sample.
        place: to read it again.
        image: the encoded picture.
        captions: people's, the main one first; none where there is none.
    """

    split: str
    shard: str
    key: str
    place: Place
    image: bytes = field(repr=False)
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A sample, or all that is left of a shard, that cannot be read.

    Attributes:
        split: as of a sample.
        shard: its file.
        key: of the sample; empty where it is not known.
        reason: why.
    """

    split: str
    shard: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A shard of a set."""

    path: Path
    name: str
    split: str
    ours: bool
    num_samples: int | None


def list_shards(source: str) -> list[ShardFile]:
    """The shards of a set.

    Args:
        source: a folder that `pocketclip pack`, `reinforce` or `filter` wrote; or WebDataset tars: one, a pattern as
            `shards/{000..127}.tar`, or a folder of them, whose subfolders are the splits.

    Raises:
        FileNotFoundError: there is no such place.
        ValueError: it holds no shards.
    """
    path = Path(source)
    if not is_pattern(source) and path.is_dir() and is_packed(path):
        index = read_index(path)
        return [
            ShardFile(
                path=path / entry.file, name=entry.file, split=split, ours=True, num_samples=entry.num_samples
            )
            for split, entries in index.splits.items()
            for entry in entries
        ]
    files, root = list_files(path)
    tars = [file for file in files if file.suffix.casefold() == ".tar"]
    if not tars:
        raise ValueError(
            f"{source} holds no shards: `pocketclip pack {source} OUT` makes them of pictures and captions"
        )
    names = [file.relative_to(root).as_posix() for file in tars]
    return [
        ShardFile(path=file, name=name, split=split_of(name), ours=False, num_samples=None)
        for file, name in zip(tars, names, strict=True)
    ]


def split_of(name: str) -> str:
    """The split that the name of a tar tells, "val-0003.tar" or "train/0001.tar"."""
    *folders, file = name.split("/")
    told = _SPLIT.search(file.casefold())
    return folders[0] if folders else told[1] if told else "all"


def read_shard(shard: ShardFile) -> Iterator[ShardSample | Lost]:
    """The samples of a shard, in order; what cannot be read among them."""

    def lost(reason: str, key: str = "") -> Lost:
        return Lost(split=shard.split, shard=shard.name, key=key, reason=reason)

    if not shard.ours:
        for group in read_groups(shard.path):
            if isinstance(group, Dropped):
                yield lost(group.reason, group.source.removeprefix(shard.path.name).removeprefix(": "))
            else:
                yield _of_tar(group, shard, lost)
        return
    try:
        reader = ShardReader(shard.path)
    except (OSError, ValueError) as error:
        yield lost(str(error))
        return
    with reader:
        for row in range(len(reader)):
            try:
                sample = reader[row]
            except ValueError as error:
                yield lost(str(error), _key(reader, row))
                continue
            yield ShardSample(
                split=shard.split,
                shard=shard.name,
                key=sample.key,
                place=Place(path=shard.path, row=row),
                image=sample.image,
                captions=sample.captions,
            )


def _key(reader: ShardReader, row: int) -> str:
    try:
        return reader.keys[row]
    except ValueError:
        return f"row {row}"


def _of_tar(group: Group, shard: ShardFile, lost: Callable[[str, str], Lost]) -> ShardSample | Lost:
    picture = picture_of(group.members)
    if picture is None:
        return lost(
            f"no picture (it has {', '.join(member.extension for member in group.members)})", group.key
        )
    try:
        captions, _ = captions_of(group.members)
    except ValueError as error:
        return lost(str(error), group.key)
    first, last = group.members[0], group.members[-1]
    return ShardSample(
        split=shard.split,
        shard=shard.name,
        key=group.key,
        place=Place(path=shard.path, start=first.start, end=last.end),
        image=picture.data,
        captions=captions,
    )


class Pictures:
    """Reads pictures again, by their place."""

    def __init__(self) -> None:
        self._open = lru_cache(maxsize=_OPEN_SHARDS)(ShardReader)

    def read(self, place: Place) -> bytes:
        """The encoded picture.

        Raises:
            ValueError: the shard was changed.
            OSError: it cannot be read.
        """
        if place.row is not None:
            return self._open(place.path)[place.row].image
        picture = picture_of(read_group(place.path, start=place.start, end=place.end).members)
        if picture is None:
            raise ValueError(f"{place.path} has no picture at byte {place.start:,}: it was changed")
        return picture.data
