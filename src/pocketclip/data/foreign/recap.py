"""Recap-COCO: MSCOCO's pictures with captions that a language model wrote anew, as JSON or with the pictures inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from pocketclip.data.foreign.fields import find_field, parse_captions, parse_record
from pocketclip.data.foreign.folder import CaptionedFile
from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue

RecapText = Literal["recaption", "caption", "both"]

TEXT_FIELDS = {
    "recaption": ("recaption", "re_caption"),
    "caption": ("caption", "org_caption"),
}
"""Names of the fields of both texts: Recap-COCO-30K's, and those of Recap-DataComp-1B."""
_PICTURES = ("file_name", "image_filepath", "coco_url", "url")


def read_recap(path: Path, *, pictures: Path, text: RecapText) -> tuple[list[CaptionedFile], list[Dropped]]:
    """Reads a JSON list of records, or JSON lines.

    Args:
        path: of the records; each names its picture as a file, or by an address whose last part is the file's name.
        pictures: folder of the files.
        text: `recaption`, the original `caption`, or `both` as two captions of the picture.

    Returns:
        The pictures in the file's order, and records that cannot be used.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    kinds = ("recaption", "caption") if text == "both" else (text,)
    found: list[CaptionedFile] = []
    dropped: list[Dropped] = []
    for number, record in enumerate(_records(path), start=1):
        source = f"{path.name}: row {number}"
        if isinstance(record, ValueError):
            dropped.append(Dropped(source=source, reason=str(record)))
            continue
        captions = [caption for kind in kinds for caption in _texts(record, kind)]
        name = _name(record)
        if not captions or name is None:
            what = f"no {text}" if not captions else f"no picture (a field {', '.join(_PICTURES)})"
            dropped.append(Dropped(source=source, reason=what))
            continue
        identity = record.get("image_id")
        meta: dict[str, JsonValue] = {"image_id": identity} if isinstance(identity, int | str) else {}
        found.append(CaptionedFile(path=pictures / name, name=name, captions=captions, meta=meta))
    if not found:
        first = f" ({dropped[0].source}: {dropped[0].reason})" if dropped else ""
        raise ValueError(f"{path} has no record of Recap-COCO{first}")
    return found, dropped


def _records(path: Path) -> Iterator[dict[str, JsonValue] | ValueError]:
    data = path.read_bytes()
    if not data.lstrip().startswith(b"["):
        for line in data.splitlines():
            if line.strip():
                try:
                    yield parse_record(line)
                except ValueError as error:
                    yield error
        return
    try:
        rows = json.loads(data.decode("utf-8-sig"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    for row in rows:
        yield row if isinstance(row, dict) else ValueError("it is not a JSON object")


def _texts(record: dict[str, JsonValue], kind: str) -> tuple[str, ...]:
    field = find_field(record, TEXT_FIELDS[kind])
    return parse_captions(record[field]) if field is not None else ()


def _name(record: dict[str, JsonValue]) -> str | None:
    for field in _PICTURES:
        value = record.get(field)
        if isinstance(value, str) and value:
            return PurePosixPath(urlsplit(value).path).name if "://" in value else value
    return None
