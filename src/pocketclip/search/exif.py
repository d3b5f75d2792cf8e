"""What a camera wrote beside the pixels: when, where, which way up. Whatever is odd in it counts as not written.

EXIF is a small TIFF file (CIPA DC-008, section 4.6) inside the picture, wherever the picture's format keeps it.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

_TIFF = (b"II*\0", b"MM\0*")
_CHUNKS = ((b"\x89PNG", b"eXIf", 4), (b"RIFF", b"EXIF", 8))  # signature, name, from there to the data
_MARK = b"Exif\0\0"  # before it in JPEG, HEIF, AVIF and some WebP
_JPEG_HEAD = 2**18  # bytes at the beginning of a JPEG in which EXIF lies

_ORIENTATION, _CHANGED, _EXIF, _GPS = 0x0112, 0x0132, 0x8769, 0x8825
_TAKEN, _DIGITISED = 0x9003, 0x9004
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8, 13: 4}  # bytes of a value, by its type
_MOST_FIELDS = 1000
_MOST_BYTES = 64  # of the fields that are of use
_DATE = re.compile(r"(\d{4})[:\-/.](\d\d)[:\-/.](\d\d)[ T](\d\d):(\d\d):(\d\d)")

_Fields = Mapping[int, tuple[int, bytes]]


@dataclass(frozen=True, kw_only=True)
class Exif:
    """What is of use for searching.

    Attributes:
        taken: local time where it was taken, ISO 8601 to the second: people look for the day as it was there, so the
            zone that newer cameras add (OffsetTimeOriginal) changes nothing.
        latitude: degrees, -90 to 90, north positive.
        longitude: degrees, -180 to 180, east positive.
        orientation: 1 to 8; 1 where nothing is said.
    """

    taken: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    orientation: int = 1


def read_exif(data: bytes) -> Exif:
    """Reads the EXIF of an encoded picture.

    Args:
        data: a whole file: JPEG, PNG, WebP, TIFF (most cameras' raw files are), HEIF or AVIF.

    Returns:
        What it says; nothing where there is no EXIF, or a damaged one.
    """
    start = _find(data)
    if start is None:
        return Exif()
    order = "<" if data[start : start + 2] == b"II" else ">"
    main = _fields(data, start, order, _number(data, start + 4, order))
    inner = _fields(data, start, order, _offset(main.get(_EXIF), order))
    place = _fields(data, start, order, _offset(main.get(_GPS), order))
    dates = (
        _date(fields.get(tag)) for fields, tag in ((inner, _TAKEN), (inner, _DIGITISED), (main, _CHANGED))
    )
    latitude = _degrees(place, _LATITUDE, _LATITUDE_REF, order, most=90.0)
    longitude = _degrees(place, _LONGITUDE, _LONGITUDE_REF, order, most=180.0)
    if latitude is None or longitude is None or latitude == longitude == 0.0:  # zeros: no satellite was seen
        latitude = longitude = None
    orientation = _offset(main.get(_ORIENTATION), order) or 1
    return Exif(
        taken=next((date for date in dates if date is not None), None),
        latitude=latitude,
        longitude=longitude,
        orientation=orientation if 1 <= orientation <= 8 else 1,
    )


def local_time(text: str) -> str | None:
    """A date as cameras write it, "2024:05:01 12:00:00", as ISO 8601; None where it is none."""
    found = _DATE.match(text.strip())
    if found is None:
        return None
    try:
        return datetime.fromisoformat("{}-{}-{}T{}:{}:{}".format(*found.groups())).isoformat()
    except ValueError:
        return None


def _find(data: bytes) -> int | None:
    if data[:4] in _TIFF:
        return 0
    for signature, name, skip in _CHUNKS:
        at = data.find(name) if data.startswith(signature) else -1
        if at >= 0:
            at += skip
            at += len(_MARK) if data[at : at + len(_MARK)] == _MARK else 0
            return at if data[at : at + 4] in _TIFF else None
    end = _JPEG_HEAD if data.startswith(b"\xff\xd8") else len(data)
    at = data.find(_MARK, 0, end)
    while at >= 0:
        at += len(_MARK)
        if data[at : at + 4] in _TIFF:
            return at
        at = data.find(_MARK, at, end)
    return None


def _number(data: bytes, at: int, order: str) -> int | None:
    return struct.unpack_from(f"{order}I", data, at)[0] if at + 4 <= len(data) else None


def _fields(data: bytes, start: int, order: str, offset: int | None) -> _Fields:
    """Fields of a directory, by tag: the type, and the value's bytes."""
    fields: dict[int, tuple[int, bytes]] = {}
    if offset is None or offset < 8 or start + offset + 2 > len(data):
        return fields
    at = start + offset
    (num,) = struct.unpack_from(f"{order}H", data, at)
    for place in range(at + 2, at + 2 + 12 * min(num, _MOST_FIELDS), 12):
        if place + 12 > len(data):
            break
        tag, type_, count, value = struct.unpack_from(f"{order}HHI4s", data, place)
        num_bytes = _SIZES.get(type_, 0) * count
        if 0 < num_bytes <= _MOST_BYTES:
            if num_bytes > 4:
                begin = start + struct.unpack(f"{order}I", value)[0]
                value = data[begin : begin + num_bytes]
            fields.setdefault(tag, (type_, value[:num_bytes]))
    return fields


def _offset(field: tuple[int, bytes] | None, order: str) -> int | None:
    if field is None or field[0] not in (3, 4, 13):
        return None
    type_, value = field
    size = _SIZES[type_]
    return (
        struct.unpack(order + ("H" if type_ == 3 else "I"), value[:size])[0] if len(value) >= size else None
    )


def _date(field: tuple[int, bytes] | None) -> str | None:
    return None if field is None else local_time(field[1].decode("latin-1"))


def _degrees(fields: _Fields, tag: int, ref: int, order: str, *, most: float) -> float | None:
    type_, value = fields.get(tag, (0, b""))
    if type_ != 5 or len(value) != 24:
        return None
    numbers = struct.unpack(f"{order}6I", value)
    parts = [over / under if under else 0.0 for over, under in zip(numbers[::2], numbers[1::2], strict=True)]
    if not numbers[1]:
        return None
    degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
    if not math.isfinite(degrees) or degrees > most:
        return None
    return -degrees if fields.get(ref, (2, b""))[1][:1] in (b"S", b"W") else degrees
