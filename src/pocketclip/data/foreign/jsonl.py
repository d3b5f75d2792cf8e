"""JSON lines with the pictures' bytes inside, in base64."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.foreign.fields import find_field, make_key, parse_captions, parse_record, take_captions
from pocketclip.data.foreign.parquet import KEY_COLUMNS, PICTURE_COLUMNS
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")
_SYNTHETIC = "syn_text"  # what the names of fields of synthetic captions begin with, in published data


def read_jsonl(
    paths: Sequence[Path], *, root: Path, split_of: Callable[[str], str]
) -> Iterator[Candidate | Dropped]:
    """Reads lines one after the other, plain or gzipped.

    The picture is a field of base64, the caption a field of text or of a list of texts; fields whose names begin with
    `syn_text` are synthetic captions; the others become `meta`.

    Args:
        paths: the files.
        root: names are relative to it.
        split_of: key -> split.

    Yields:
        A candidate for each line, or why there is none. A file that is cut keeps its whole lines.
    """
    for path in paths:
        name = path.relative_to(root).as_posix()
        row = 0
        try:
            with _opened(path) as file:
                for line in file:
                    if line.strip():
                        yield _candidate(line, source=f"{name}: row {row}", split_of=split_of)
                        row += 1
        except (EOFError, zlib.error, OSError) as error:
            yield Dropped(source=name, reason=f"it is cut or damaged after row {row} ({error})")


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _candidate(line: bytes, *, source: str, split_of: Callable[[str], str]) -> Candidate | Dropped:
    try:
        captions, meta = take_captions(parse_record(line))
        image = _picture(meta)
    except ValueError as error:
        return Dropped(source=source, reason=str(error))
    if not captions:
        return Dropped(source=source, reason="no caption")
    key_field = find_field(meta, KEY_COLUMNS)
    key = make_key(str(meta.pop(key_field)) if key_field is not None else source)
    synthetic = {
        make_key(name): texts
        for name in [name for name in meta if name.startswith(_SYNTHETIC)]
        if (texts := parse_captions(meta.pop(name)))
    }
    return Candidate(
        source=source,
        split=split_of(key),
        key=key,
        image=image,
        captions=captions,
        synthetic=synthetic,
        meta=meta,
    )


def _picture(record: dict[str, JsonValue]) -> bytes:
    """Takes the picture out of a record."""
    field = find_field(record, PICTURE_COLUMNS)
    text = record.pop(field) if field is not None else None
    if not isinstance(text, str) or not text:
        raise ValueError(f"no picture (a field {PICTURE_COLUMNS[0]} with its bytes in base64)")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the picture is not base64 ({error})") from error
