"""Tar shards to samples and back: any WebDataset reader reads them, the same samples give the same bytes.

A sample is three members, `{key}.{extension}`, `{key}.txt` (the main caption) and `{key}.json` (everything
else). After the samples come blocks, members named `__name__`: data of the whole shard, which WebDataset
readers skip.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import tarfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import numpy as np

from pocketclip.data.part import SUFFIX, read_part
from pocketclip.data.places import end_of_samples, find_places, key_at
from pocketclip.data.publish import publish_file
from pocketclip.data.sample import IMAGE_EXTENSIONS, JsonValue, Sample

_BLOCK = 512
_RECORD = 10_240  # tar files end on a whole record
_NAME = re.compile(r"[a-z0-9_]{1,90}")
_MAX_MEMBER_BYTES = 8**11 - 1  # eleven octal digits of a ustar header


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard as an index lists it.

    Attributes:
        file: name relative to the index's folder, "train/000000.tar".
        num_samples: samples in it.
        num_bytes: size of the file.
        sha256: of the file's bytes, 64 hexadecimal digits.
    """

    file: str
    num_samples: int
    num_bytes: int
    sha256: str


def write_shard(
    path: Path, samples: Iterable[Sample], *, blocks: Mapping[str, bytes] | None = None
) -> ShardEntry:
    """Writes a shard, whole or not at all; the same samples and blocks give the same bytes.

    Args:
        path: the shard's name, `{split}/{number}.tar`.
        samples: what goes in, in this order.
        blocks: name (lower case letters, digits, "_") -> bytes, written after the samples as `__name__`.

    Returns:
        The shard's entry; `file` is the last two parts of `path`.

    Raises:
        ValueError: two samples have one key.
        PublishError: the shard cannot be written.
    """
    with open_shard(path) as shard:
        for sample in samples:
            shard.add(sample)
        for name, data in (blocks or {}).items():
            shard.add_block(name, data)
    return shard.entry()


@contextmanager
def open_shard(path: Path) -> Generator[ShardWriter, None, None]:
    """Opens a shard to add samples to, for writers that fill several at once; see `write_shard`.

    Yields:
        The writer. The shard appears under its name when the block ends without an exception.

    Raises:
        PublishError: the shard cannot be written.
    """
    path = Path(path)
    with publish_file(path) as file:
        shard = ShardWriter(path, _TarWriter(file))
        yield shard
        shard.finish()


def shard_writer(file: IO[bytes], *, path: Path) -> ShardWriter:
    """Writes a shard to an open file, for callers that publish it themselves; call `finish` at the end.

    Args:
        file: open for writing.
        path: the name that the shard will have, for its entry and for messages.
    """
    return ShardWriter(path, _TarWriter(file))


class ShardWriter:
    """A shard being written; made by `open_shard` and `shard_writer`."""

    def __init__(self, path: Path, tar: _TarWriter) -> None:
        self._path = path
        self._tar = tar
        self._keys: set[str] = set()
        self._blocks: set[str] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, sample: Sample) -> None:
        """Appends a sample. ValueError when its key is already there."""
        assert not self._blocks, "samples come before blocks"
        if sample.key in self._keys:
            raise ValueError(f"{self._path}: two samples have the key {sample.key!r}; keys must be unique")
        details = _details(sample)
        self._keys.add(sample.key)
        self._tar.add(f"{sample.key}.{sample.extension}", sample.image)
        self._tar.add(f"{sample.key}.txt", sample.captions[0].encode())
        self._tar.add(f"{sample.key}.json", details)

    def add_block(self, name: str, data: bytes) -> None:
        """Appends data of the whole shard as member `__name__`."""
        self.add_long_block(name, [data], num_bytes=len(data))

    def add_long_block(self, name: str, chunks: Iterable[bytes], *, num_bytes: int) -> None:
        """Appends data of the whole shard as member `__name__`, without all of it in memory."""
        if not _NAME.fullmatch(name) or name in self._blocks:
            raise ValueError(
                f"{self._path}: block name {name!r} must be lower case letters, digits or '_', and used once"
            )
        self._blocks.add(name)
        self._tar.add_chunks(f"__{name}__", chunks, num_bytes=num_bytes)

    def finish(self) -> None:
        """Ends the tar; `open_shard` calls it itself."""
        self._tar.finish()

    def entry(self) -> ShardEntry:
        """The shard's line in the index; call it when `open_shard`'s block has ended."""
        return ShardEntry(
            file=f"{self._path.parent.name}/{self._path.name}",
            num_samples=len(self._keys),
            num_bytes=self._tar.num_bytes,
            sha256=self._tar.digest.hexdigest(),
        )


class _TarWriter:
    """Appends ustar members with nothing in them that depends on machine, user or time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.num_bytes = 0
        self.digest = hashlib.sha256()

    def add(self, name: str, data: bytes) -> None:
        self.add_chunks(name, [data], num_bytes=len(data))

    def add_chunks(self, name: str, chunks: Iterable[bytes], *, num_bytes: int) -> None:
        if num_bytes > _MAX_MEMBER_BYTES:
            raise ValueError(f"tar member {name} has {num_bytes:,} bytes, more than a ustar member can hold")
        info = tarfile.TarInfo(name)
        info.size = num_bytes
        info.mode = 0o644
        self._write(info.tobuf(format=tarfile.USTAR_FORMAT))
        before = self.num_bytes
        for chunk in chunks:
            self._write(chunk)
        assert self.num_bytes - before == num_bytes, name
        self._write(bytes(-num_bytes % _BLOCK))

    def finish(self) -> None:
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self.num_bytes % _RECORD))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.num_bytes += len(data)


def _details(sample: Sample) -> bytes:
    details = {
        "captions": list(sample.captions),
        "synthetic": {name: list(texts) for name, texts in sample.synthetic.items()},
        "meta": dict(sample.meta),
    }
    text = json.dumps(details, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


class _Member(NamedTuple):
    name: str
    start: int
    end: int


class ShardReader:
    """Random access to the samples and blocks of one of our own shards, through a memory map.

    Args:
        path: the shard, or a part of one (`data/part.py`).
        places: of its samples, where another reader of the same file has found them.

    Attributes:
        path: as given.
        places: int64 [N, 4], where each sample's picture begins and ends, and its details; see `data/places.py`.
        rows: int64 [N], of a part: the samples' numbers in their shard, by which its blocks go; else None.

    Raises:
        ValueError: the file is empty, cut in the middle, damaged or not one of our shards.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: Path, *, places: np.ndarray | None = None) -> None:
        self.path = Path(path)
        part = read_part(self.path) if self.path.suffix == SUFFIX else None
        self.rows = None if part is None else part.rows_N
        with (self.path if part is None else part.shard).open("rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise ValueError(f"{self.path} is empty, not a shard: {_REMEDY}") from error
        self._view = memoryview(self._map)
        try:
            self.places, self._blocks = self._read(places if part is None else None)
            if self.rows is not None:
                self.places = self._taken(self.rows)
        except ValueError:
            self.close()
            raise

    def _taken(self, rows_N: np.ndarray) -> np.ndarray:
        if len(rows_N) and rows_N.max() >= len(self.places):
            raise ValueError(f"{self.path} names sample {rows_N.max()} of a shard of {len(self.places)}")
        return self.places[rows_N]

    def _read(self, places: np.ndarray | None) -> tuple[np.ndarray, dict[str, _Member]]:
        if places is None:
            places = find_places(self._view)
        if places is not None:
            rest = _members(self._view, path=self.path, at=end_of_samples(places))
            if all(_is_block(member.name) for member in rest):
                return places, {member.name[2:-2]: member for member in rest}
        return _read_members(_members(self._view, path=self.path), path=self.path)

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def keys(self) -> list[str]:
        """Keys of the samples, in the order of the shard."""
        return [key_at(self._view, start)[0] for start in self.places[:, 0].tolist()]

    def __getitem__(self, i: int) -> Sample:
        """The sample at row `i`, counted from 0 (negative from the end)."""
        start, end, details_start, details_end = self.places[i].tolist()
        key, extension = key_at(self._view, start)
        details = _parse_details(
            bytes(self._view[details_start:details_end]), name=f"{self.path}: {key}.json"
        )
        return Sample(key=key, image=bytes(self._view[start:end]), extension=extension, **details._asdict())

    def block(self, name: str) -> memoryview | None:
        """A view of the bytes of block `__name__` without a copy, or None when the shard has none."""
        member = self._blocks.get(name)
        return None if member is None else self._view[member.start : member.end]

    def close(self) -> None:
        """Closes the map; views that `block` gave stay valid until they are dropped."""
        self._view.release()
        with suppress(BufferError):  # a block is still in use: the map closes with the last view of it
            self._map.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_REMEDY = "make or copy it again (`pocketclip pack SOURCE OUT` turns other tars into shards)"


def _members(view: memoryview, *, path: Path, at: int = 0) -> list[_Member]:
    members: list[_Member] = []
    while True:
        header = bytes(view[at : at + _BLOCK])
        if len(header) < _BLOCK:
            where = f"after {members[-1].name}" if members else "in its first block"
            raise ValueError(f"{path} is cut {where} (at byte {len(view):,}): {_REMEDY}")
        if not header.strip(b"\0"):
            return members
        name, size = _parse_header(header, path=path, at=at)
        start = at + _BLOCK
        if start + size > len(view):
            raise ValueError(
                f"{path} is cut in the middle of {name} (at byte {len(view):,}, "
                f"{start + size - len(view):,} bytes are missing): {_REMEDY}"
            )
        members.append(_Member(name, start, start + size))
        at = start + size + -size % _BLOCK


def _parse_header(header: bytes, *, path: Path, at: int) -> tuple[str, int]:
    try:
        checksum = int(header[148:156].strip(b" \0"), 8)
        size = int(header[124:136].strip(b" \0"), 8)
        name = header[:100].rstrip(b"\0").decode("ascii")
    except ValueError as error:
        raise ValueError(f"{path} is not a shard or is damaged (at byte {at:,}): {_REMEDY}") from error
    if header[257:262] != b"ustar" or sum(header) - sum(header[148:156]) + 8 * 32 != checksum:
        raise ValueError(f"{path} is not a shard or is damaged (at byte {at:,}): {_REMEDY}")
    if header[156:157] not in (b"0", b"\0"):
        raise ValueError(f"{path} holds {name}, not a plain file, so pocketclip did not write it: {_REMEDY}")
    return name, size


def _read_members(members: list[_Member], *, path: Path) -> tuple[np.ndarray, dict[str, _Member]]:
    """Places of the samples, and the blocks, wherever they are."""
    blocks = {m.name[2:-2]: m for m in members if _is_block(m.name)}
    files = [m for m in members if not _is_block(m.name)]
    places: list[tuple[int, int, int, int]] = []
    for row in range(0, len(files), 3):
        key, _, extension = files[row].name.partition(".")
        names = [m.name for m in files[row : row + 3]]
        if extension not in IMAGE_EXTENSIONS or names[1:] != [f"{key}.txt", f"{key}.json"]:
            raise ValueError(
                f"{path} is a tar but not laid out as a pocketclip shard (at {' '.join(names)}): {_REMEDY}"
            )
        image, _, details = files[row : row + 3]
        places.append((image.start, image.end, details.start, details.end))
    return np.array(places, dtype=np.int64).reshape(-1, 4), blocks


def _is_block(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


class _Details(NamedTuple):
    captions: tuple[str, ...]
    synthetic: dict[str, tuple[str, ...]]
    meta: dict[str, JsonValue]


def _parse_details(data: bytes, *, name: str) -> _Details:
    try:
        details = json.loads(data)
        return _Details(
            captions=tuple(details["captions"]),
            synthetic={captioner: tuple(texts) for captioner, texts in details["synthetic"].items()},
            meta=details["meta"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is damaged ({error!r}): {_REMEDY}") from error
