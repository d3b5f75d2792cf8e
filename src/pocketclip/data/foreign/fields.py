"""Reading other people's records: which field is the caption, which the picture, what key to give."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from pocketclip.data.sample import MAX_KEY_LENGTH, JsonValue

CAPTION_FIELDS = ("text", "caption", "captions", "texts", "title")
"""Names of the caption field, the first found counts: imagefolder's, people's own, open_clip's."""

PICTURE_FIELDS = ("file_name", "image", "filepath", "filename", "file", "path", "image_path")
"""Names of the field that holds a picture's path."""

_COMMON = ("jpg", "jpeg", "jpe", "jfif", "png", "webp")
_OTHERS = ("gif", "bmp", "dib", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "avif", "jp2", "j2k", "ico")
PICTURE_SUFFIXES = frozenset({*_COMMON, *_OTHERS})
"""Suffixes (lower case, no dot) that make a file count as a picture; what it is, its content says."""

_HASH_DIGITS = 8


def make_key(original: str) -> str:
    """A key for what a source calls a picture; different names give different keys.

    Args:
        original: the source's own name, anything.

    Returns:
        The name itself where it is a key already, else its letters and digits and a hash of it.
    """
    clean = re.sub(r"[^A-Za-z0-9_-]+", "-", original).strip("-")
    if clean == original and 0 < len(clean) <= MAX_KEY_LENGTH:
        return clean
    digest = hashlib.sha256(original.encode(errors="surrogatepass")).hexdigest()[:_HASH_DIGITS]
    head = clean[: MAX_KEY_LENGTH - _HASH_DIGITS - 1]
    return f"{head}-{digest}" if head else digest


def find_field(fields: Iterable[str], known: Sequence[str]) -> str | None:
    """The first of the known names that is among the fields, whatever its case, as the source spells it."""
    by_name = {field.strip().casefold(): field for field in reversed(list(fields))}
    return next((by_name[name] for name in known if name in by_name), None)


def parse_captions(value: JsonValue) -> tuple[str, ...]:
    """Captions in a field: a text, or a list of texts. Empty ones, repetitions and non-texts are left out."""
    texts = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))


def parse_record(data: bytes) -> dict[str, JsonValue]:
    """A JSON object out of bytes; NaN and infinity, which are not JSON, become null.

    Raises:
        ValueError: not UTF-8, or not a JSON object.
    """
    try:
        record = json.loads(data.decode("utf-8-sig"), parse_constant=lambda _: None)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    return record


def parse_text(data: bytes) -> str:
    """Text of a caption file, without byte order mark.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the caption is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def take_captions(record: Mapping[str, JsonValue]) -> tuple[tuple[str, ...], dict[str, JsonValue]]:
    """Captions of a record, and the rest of it.

    Returns:
        The captions of its first caption field (none where there is no such field), the other fields.
    """
    field = find_field(record, CAPTION_FIELDS)
    captions = parse_captions(record[field]) if field is not None else ()
    return captions, {name: value for name, value in record.items() if name != field}
