"""WebDataset tars, as other tools write them."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
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


class _Member(NamedTuple):
    key: str
    extension: str
    data: bytes


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
        group: list[_Member] = []
        try:
            for member in _members(path):
                if group and member.key != group[0].key:
                    yield _candidate(group, path=path, split_of=split_of)
                    group = []
                group.append(member)
        except _Cut as cut:
            if cut.key is not None:
                yield Dropped(source=f"{path.name}: {cut.key}", reason="the tar is cut in this sample")
            if group and group[0].key != cut.key:
                yield _candidate(group, path=path, split_of=split_of)
            yield Dropped(source=path.name, reason=str(cut))
        except OSError as error:
            yield Dropped(source=path.name, reason=f"cannot be read: {error.strerror or error}")
        else:
            if group:
                yield _candidate(group, path=path, split_of=split_of)


def _members(path: Path) -> Iterator[_Member]:
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
                    member = _read(tar, info)
                    at = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
                    if member is not None:
                        yield member
        except tarfile.TarError as error:
            raise _Cut(f"the tar is cut or damaged after byte {at:,} ({error})") from error
        file.seek(at)
        end = file.read(_BLOCK)
    if end != bytes(_BLOCK):
        raise _Cut(f"the tar is cut or damaged after byte {at:,}; the samples before it were kept")


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member | None:
    path = PurePosixPath(info.name)
    stem, dot, extension = path.name.partition(".")
    if not dot or not stem or (info.name.startswith("__") and info.name.endswith("__")):
        return None  # hidden files, and what WebDataset itself skips
    key = (path.parent / stem).as_posix()
    data = tar.extractfile(info)
    assert data is not None, "only plain files come here"
    try:
        return _Member(key, extension.casefold(), data.read())
    except tarfile.TarError as error:
        reason = f"the tar is cut in {info.name} ({error}); the samples before it were kept"
        raise _Cut(reason, key=key) from error


def _candidate(group: list[_Member], *, path: Path, split_of: Callable[[str], str]) -> Candidate | Dropped:
    source = f"{path.name}: {group[0].key}"
    picture = _picture(group)
    if picture is None:
        found = ", ".join(member.extension for member in group)
        return Dropped(source=source, reason=f"no picture (it has {found})")
    try:
        captions, meta = _captions(group)
    except ValueError as error:
        return Dropped(source=source, reason=str(error))
    if not captions:
        return Dropped(source=source, reason="no caption (no txt, caption or json with text)")
    key = make_key(group[0].key)
    return Candidate(
        source=f"{source}.{picture.extension}",
        split=split_of(key),
        key=key,
        image=picture.data,
        captions=captions,
        meta=meta,
    )


def _picture(group: list[_Member]) -> _Member | None:
    by_extension = {member.extension: member for member in reversed(group)}
    plain = next((by_extension[e] for e in ("jpg", "jpeg", "png", "webp") if e in by_extension), None)
    others = (m for m in group if m.extension.rpartition(".")[2] in PICTURE_SUFFIXES)
    return plain or next(others, None)


def _captions(group: list[_Member]) -> tuple[tuple[str, ...], dict[str, JsonValue]]:
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
