"""WebDataset tars, as other tools write them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.fields import (
    PICTURE_SUFFIXES,
    make_key,
    parse_captions,
    parse_record,
    parse_text,
    take_captions,
)
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

_BLOCK = 512


class Member(NamedTuple):
    """One file of a sample in a tar.

    Attributes:
        key: its name up to the first dot, folders included.
        extension: the rest, in lower case, without the first dot.
        data: its bytes.
        start, end: where it is in the tar, header and padding included.
    """

    key: str
    extension: str
    data: bytes
    start: int
    end: int


class Group(NamedTuple):
    """Files in a row whose names agree up to the first dot: a sample.

    Attributes:
        source: names it to a person, "shard.tar: key".
        members: one or more, in the order of the tar.
    """

    source: str
    members: list[Member]

    @property
    def key(self) -> str:
        """What its files' names have in common."""
        return self.members[0].key

    def data(self, extension: str) -> bytes | None:
        """The bytes of its first file of that extension."""
        return next((member.data for member in self.members if member.extension == extension), None)


class _Cut(Exception):  # noqa: N818 - not an error to anyone outside
    """The tar ends or breaks before its end mark; `key` is that of a sample which lost a part by it."""

    def __init__(self, reason: str, *, key: str | None = None) -> None:
        super().__init__(reason)
        self.key = key


def read_tars(paths: Sequence[Path], *, split_of: Callable[[str], str]) -> Iterator[Candidate | Dropped]:
    """Reads tars one after the other; members in a row whose names agree up to the first dot are a sample.

    A sample's picture is its jpg, jpeg, png or webp (or any other picture) in any case; its captions are
    those of its txt, caption and json; other fields of the json become `meta`. Nothing is unpickled.

    Args:
        paths: the tars.
        split_of: key -> split.

    Yields:
        A candidate for each sample, or why there is none. A tar that is cut keeps its whole samples.
    """
    for path in paths:
        for group in read_groups(path):
            yield group if isinstance(group, Dropped) else _candidate(group, split_of=split_of)


def read_groups(path: Path, *, only: Collection[str] | None = None) -> Iterator[Group | Dropped]:
    """Reads a tar sample by sample, whatever its files are.

    Args:
        path: the tar.
        only: extensions to read; of other files the bytes are passed over and come empty. None reads all.

    Yields:
        A group for each sample, or what is lost and why. A tar that is cut keeps its whole samples.
    """
    group: list[Member] = []
    try:
        for member in _members(path, only=only):
            if group and (member.key != group[0].key or _has(group, member.extension)):
                yield _group(group, path)
                group = []
            group.append(member)
    except _Cut as cut:
        if cut.key is not None:
            yield Dropped(source=f"{path.name}: {cut.key}", reason="the tar is cut in this sample")
        if group and group[0].key != cut.key:
            yield _group(group, path)
        yield Dropped(source=path.name, reason=str(cut))
    except OSError as error:
        yield Dropped(source=path.name, reason=f"cannot be read: {error.strerror or error}")
    else:
        if group:
            yield _group(group, path)


def read_group(path: Path, *, start: int, end: int) -> Group:
    """One sample of a tar, by its place.

    Args:
        path: the tar.
        start: of its first file, `Member.start`.
        end: of its last, `Member.end`.

    Raises:
        ValueError: there is no sample at this place.
        OSError: the tar cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(end - start)
    try:
        with tarfile.open(fileobj=io.BytesIO(data + bytes(2 * _BLOCK)), mode="r:") as tar:
            found = [_read(tar, info, only=None) for info in tar if info.isreg()]
    except (tarfile.TarError, _Cut) as error:
        raise ValueError(f"{path} has no sample at byte {start:,}: it was changed ({error})") from None
    members = [member for member in found if member is not None]
    if not members or any(member.key != members[0].key for member in members):
        raise ValueError(f"{path} has no sample at byte {start:,}: it was changed")
    return _group(members, path)


def _has(group: list[Member], extension: str) -> bool:
    """Whether a sample has a file of that extension: one more begins another sample of the same name."""
    return any(member.extension == extension for member in group)


def _group(members: list[Member], path: Path) -> Group:
    return Group(source=f"{path.name}: {members[0].key}", members=members)


def _members(path: Path, *, only: Collection[str] | None) -> Iterator[Member]:
    if path.stat().st_size == 0:
        raise _Cut("the tar has zero bytes")
    at = 0
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    if not info.isreg():
                        at = tar.offset
                        continue
                    member = _read(tar, info, only=only)
                    at = _end(info)
                    if member is not None:
                        yield member
        except tarfile.TarError as error:
            raise _Cut(f"the tar is cut or damaged after byte {at:,} ({error})") from error
        file.seek(at)
        end = file.read(_BLOCK)
    if end != bytes(_BLOCK):
        raise _Cut(f"the tar is cut or damaged after byte {at:,}; the samples before it were kept")


def _end(info: tarfile.TarInfo) -> int:
    return info.offset_data + -(-info.size // _BLOCK) * _BLOCK


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo, *, only: Collection[str] | None) -> Member | None:
    path = PurePosixPath(info.name)
    stem, dot, extension = path.name.partition(".")
    if not dot or not stem or (info.name.startswith("__") and info.name.endswith("__")):
        return None  # hidden files, and what WebDataset itself skips
    key, extension = (path.parent / stem).as_posix(), extension.casefold()
    if only is not None and extension not in only:
        return Member(key, extension, b"", info.offset, _end(info))
    data = tar.extractfile(info)
    assert data is not None, "only plain files come here"
    try:
        return Member(key, extension, data.read(), info.offset, _end(info))
    except tarfile.TarError as error:
        reason = f"the tar is cut in {info.name} ({error}); the samples before it were kept"
        raise _Cut(reason, key=key) from error


def _candidate(group: Group, *, split_of: Callable[[str], str]) -> Candidate | Dropped:
    picture = picture_of(group.members)
    if picture is None:
        found = ", ".join(member.extension for member in group.members)
        return Dropped(source=group.source, reason=f"no picture (it has {found})")
    try:
        captions, meta = captions_of(group.members)
    except ValueError as error:
        return Dropped(source=group.source, reason=str(error))
    if not captions:
        return Dropped(source=group.source, reason="no caption (no txt, caption or json with text)")
    key = make_key(group.key)
    return Candidate(
        source=f"{group.source}.{picture.extension}",
        split=split_of(key),
        key=key,
        image=picture.data,
        captions=captions,
        meta=meta,
    )


def picture_of(group: Sequence[Member]) -> Member | None:
    """The picture among a sample's files."""
    by_extension = {member.extension: member for member in reversed(group)}
    plain = next((by_extension[e] for e in ("jpg", "jpeg", "png", "webp") if e in by_extension), None)
    others = (m for m in group if m.extension.rpartition(".")[2] in PICTURE_SUFFIXES)
    return plain or next(others, None)


def captions_of(group: Sequence[Member]) -> tuple[tuple[str, ...], dict[str, JsonValue]]:
    """Captions in a sample's files, and the other fields of its json.

    Raises:
        ValueError: a file is not what its name says; the sentence names it.
    """
    texts: list[JsonValue] = []
    meta: dict[str, JsonValue] = {}
    for member in group:
        try:
            if member.extension in ("txt", "caption"):
                texts.append(parse_text(member.data))
            elif member.extension == "url.txt":
                meta["url"] = parse_text(member.data).strip()
            elif member.extension == "json":
                captions, rest = take_captions(parse_record(member.data))
                texts.extend(captions)
                meta |= rest
        except ValueError as error:
            raise ValueError(f"{member.key}.{member.extension}: {error}") from error
    return parse_captions(texts), meta
