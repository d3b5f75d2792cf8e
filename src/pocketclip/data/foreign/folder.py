"""Pictures in a folder, captioned by sidecar text files or by a table (metadata.jsonl, captions.csv)."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from pocketclip.data.foreign.candidate import Candidate, unit_hash
from pocketclip.data.foreign.fields import (
    CAPTION_FIELDS,
    PICTURE_FIELDS,
    PICTURE_SUFFIXES,
    find_field,
    make_key,
    parse_captions,
    parse_record,
    parse_text,
    take_captions,
)
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue


@dataclass(kw_only=True)
class CaptionedFile:
    """A picture file and what a table or sidecar says about it.

    Attributes:
        path: of the picture.
        name: what the source calls it.
        captions: gathered so far.
        meta: other fields of its rows.
        sidecar: text file to read the captions from, one a line, instead.
        key: of its sample; given by `in_order`.
    """

    path: Path
    name: str
    captions: list[str] = field(default_factory=list)
    meta: dict[str, JsonValue] = field(default_factory=dict)
    sidecar: Path | None = None
    key: str = ""


def in_order(pictures: Sequence[CaptionedFile], *, salt: str) -> list[CaptionedFile]:
    """Gives picture files their keys, and puts them in the order of a hash, so that every shard is like the others."""
    stems = Counter(_without_suffix(picture.name) for picture in pictures)
    for picture in pictures:
        stem = _without_suffix(picture.name)
        picture.key = make_key(stem if stems[stem] == 1 else picture.name)
    return sorted(pictures, key=lambda p: (unit_hash(salt, "order", p.name), p.name))


def read_candidates(
    pictures: Iterable[CaptionedFile], *, split_of: Callable[[str], str]
) -> Iterator[Candidate | Dropped]:
    """Reads picture files one by one.

    Args:
        pictures: the files, `in_order`.
        split_of: key -> split.

    Yields:
        A candidate for each, or why there is none.
    """
    for picture in pictures:
        try:
            captions = tuple(picture.captions) or _sidecar_captions(picture)
            yield Candidate(
                source=picture.name,
                split=split_of(picture.key),
                key=picture.key,
                image=picture.path.read_bytes(),
                captions=captions,
                meta=picture.meta,
            )
        except FileNotFoundError:
            yield Dropped(source=picture.name, reason=f"no such file ({picture.path})")
        except OSError as error:
            yield Dropped(source=picture.name, reason=f"cannot be read: {error.strerror or error}")
        except ValueError as error:
            yield Dropped(source=picture.name, reason=str(error))


def find_sidecar_pictures(files: Sequence[Path], *, root: Path) -> tuple[list[CaptionedFile], list[Dropped]]:
    """Pairs pictures with the .txt of the same name beside them.

    Args:
        files: all files below `root`.
        root: names are relative to it.

    Returns:
        The pairs, and what has no partner: pictures without a caption, captions without a picture.
    """
    sidecars = {path.with_suffix(""): path for path in files if path.suffix.casefold() == ".txt"}
    pictures: list[CaptionedFile] = []
    dropped: list[Dropped] = []
    partnered: set[Path] = set()
    for path in files:
        stem, name = path.with_suffix(""), path.relative_to(root).as_posix()
        if path.suffix.casefold() == ".txt":
            continue
        sidecar = sidecars.get(stem)
        if sidecar is not None:  # a file of an unknown kind too: its decoding will say what is wrong
            partnered.add(stem)
            pictures.append(CaptionedFile(path=path, name=name, sidecar=sidecar))
        elif is_picture(path):
            dropped.append(Dropped(source=name, reason=f"no caption (no {stem.name}.txt beside it)"))
    for stem, path in sidecars.items():
        if stem not in partnered:
            name = path.relative_to(root).as_posix()
            dropped.append(Dropped(source=name, reason="a text without a picture of the same name beside it"))
    return pictures, dropped


def read_table(path: Path, *, root: Path) -> tuple[list[CaptionedFile], list[Dropped]]:
    """Reads metadata.jsonl, captions.csv or their like; rows of one picture are put together.

    Args:
        path: of the table; pictures are relative to its folder.
        root: names are relative to it.

    Returns:
        The pictures in order of their first row, and the rows that cannot be used.

    Raises:
        ValueError: a column is missing, or the table cannot be read at all.
    """
    pictures: dict[Path, CaptionedFile] = {}
    dropped: list[Dropped] = []
    for row, content in _rows(path):
        source = f"{path.relative_to(root).as_posix()}: row {row}"
        try:
            picture, captions, meta = _parse_row(content)
        except ValueError as error:
            dropped.append(Dropped(source=source, reason=str(error)))
            continue
        place = path.parent / picture
        name = place.relative_to(root).as_posix() if place.is_relative_to(root) else picture
        entry = pictures.setdefault(place, CaptionedFile(path=place, name=name))
        entry.captions.extend(caption for caption in captions if caption not in entry.captions)
        entry.meta = {**meta, **entry.meta}
    return list(pictures.values()), dropped


def is_picture(path: PurePath) -> bool:
    """Whether a file's suffix is that of a picture."""
    return path.suffix[1:].casefold() in PICTURE_SUFFIXES


def _sidecar_captions(picture: CaptionedFile) -> tuple[str, ...]:
    assert picture.sidecar is not None, "rows without captions are dropped when the table is read"
    try:
        lines = parse_text(picture.sidecar.read_bytes()).splitlines()
    except ValueError as error:
        raise ValueError(f"{picture.sidecar.name}: {error}") from error
    captions = parse_captions([*lines])
    if not captions:
        raise ValueError(f"no caption ({picture.sidecar.name} is empty)")
    return captions


def _rows(path: Path) -> Iterable[tuple[int, dict[str, JsonValue] | ValueError]]:
    return _jsonl_rows(path) if path.suffix.casefold() == ".jsonl" else _csv_rows(path)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, JsonValue] | ValueError]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, parse_record(line)
            except ValueError as error:
                yield number, error


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, JsonValue] | ValueError]]:
    # surrogateescape: one caption that is not UTF-8 costs its row, not the table
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        header = file.readline()
        file.seek(0)
        table = csv.DictReader(file, delimiter=max(",\t;", key=header.count), restkey="")
        fields = table.fieldnames or ()
        for known, what in ((PICTURE_FIELDS, "picture"), (CAPTION_FIELDS, "caption")):
            if find_field(fields, known) is None:
                raise ValueError(
                    f"{path} has no {what} column: name one of its columns ({', '.join(fields)}) {known[0]}"
                )
        try:
            for number, row in enumerate(table, start=1):
                yield number, {name: text for name, text in row.items() if isinstance(name, str) and name}
        except csv.Error as error:
            raise ValueError(
                f"{path} cannot be read as a table (after line {table.line_num}: {error})"
            ) from error


def _parse_row(
    row: dict[str, JsonValue] | ValueError,
) -> tuple[str, tuple[str, ...], dict[str, JsonValue]]:
    if isinstance(row, ValueError):
        raise row
    captions, rest = take_captions(row)
    if not captions:
        raise ValueError("no caption")
    for caption in captions:
        try:
            caption.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the caption {caption!r} is not UTF-8: save the table as UTF-8") from error
    field = find_field(rest, PICTURE_FIELDS)
    picture = rest.pop(field) if field is not None else None
    if not isinstance(picture, str) or not picture.strip():
        raise ValueError(f"no picture (a field {PICTURE_FIELDS[0]} with its path)")
    return picture.strip(), captions, rest


def _without_suffix(name: str) -> str:
    path = PurePath(name)
    return path.with_suffix("").as_posix() if path.name else name
