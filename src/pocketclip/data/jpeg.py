"""JPEGs by libjpeg-turbo itself, where the pixels are provably Pillow's.

Pillow decodes with the same library, but hands it the file in pieces and copies every line once more. What could make a
difference (colour spaces and samplings off the beaten track, damage) is left to Pillow, and the two libraries are
compared on drawn pictures before the first picture of a kind is decoded: they need not be of one version.
"""

# Shape suffixes: H W pixels, X = 4 bytes: red, green, blue and one that means nothing, as Pillow keeps them.

from __future__ import annotations

import io
import threading
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

Sampling = Literal["grey", "444", "422", "420", "440", "411"]

SCALES = (8, 4, 2)
"""What a picture may be divided by while it is decoded, at a gain; the quickest first."""

_LUMA: dict[bytes, Sampling] = {
    b"\x11": "444",
    b"\x21": "422",
    b"\x22": "420",
    b"\x12": "440",
    b"\x41": "411",
}
# In a file without these there is nothing to say before the pixels: no orientation, no second picture.
_SAYS_NOTHING = frozenset((0xDB, 0xC4, 0xDD, 0xFE))  # tables, restart interval, comment
_FRAMES = {0xC0: False, 0xC2: True}  # baseline, progressive
_SCAN = 0xDA
_END = b"\xff\xd9"
_BLOCK = 16  # rows of the tallest block of any sampling

_MOST_KEPT = 2**24  # bytes of a thread


class Header(NamedTuple):
    """What a JPEG says of itself.

    Attributes:
        width: in pixels, as stored.
        height: likewise.
        sampling: of the colour differences.
        progressive: whether it comes in several scans.
        is_bare: nothing in the header concerns how the picture is shown (EXIF, XMP, several pictures).
        height_at: where in the file its height stands.
    """

    width: int
    height: int
    sampling: Sampling
    progressive: bool
    is_bare: bool
    height_at: int


def read_header(data: bytes) -> Header | None:
    """The header of an ordinary JPEG; None for whatever else, which is for Pillow to judge.

    Ordinary are 8-bit grey and YCbCr, baseline and progressive, without a marker that belongs elsewhere.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at, is_bare, found = 2, True, None
    while True:
        marker, length = data[at + 1 : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        part = data[at + 4 : at + 2 + length]
        if data[at : at + 1] != b"\xff" or not marker or length < 2 or len(part) != length - 2:
            return None
        number = marker[0]
        if number == _SCAN:
            return found and found._replace(is_bare=is_bare)
        if number in _FRAMES:
            if found is not None:
                return None
            found = _frame(part, progressive=_FRAMES[number], at=at + 4)
            if found is None:
                return None
        elif 0xE0 <= number <= 0xEF:
            if number == 0xEE and part[:5] == b"Adobe" and part[11:12] != b"\x01":
                return None  # the three components are red, green and blue
            is_bare &= number == 0xE0 and part[:5] == b"JFIF\0" and len(part) >= 12
        elif number not in _SAYS_NOTHING:
            return None
        at += 2 + length


def _frame(part: bytes, *, progressive: bool, at: int) -> Header | None:
    height, width = int.from_bytes(part[1:3], "big"), int.from_bytes(part[3:5], "big")
    sampling: Sampling | None = None
    if part[5:6] == b"\x01" and len(part) == 9:
        sampling = "grey"
    elif part[5:6] == b"\x03" and len(part) == 15 and part[6::3] == b"\x01\x02\x03":
        sampling = _LUMA.get(part[7:8]) if part[10:11] == part[13:14] == b"\x11" else None
    if part[:1] != b"\x08" or not height or not width or sampling is None:
        return None
    return Header(width, height, sampling, progressive, is_bare=True, height_at=at + 1)


def decode_pixels(
    data: bytes, header: Header, *, divisor: int = 1, bottom: int | None = None
) -> np.ndarray | None:
    """The pixels as stored; None where they are for Pillow to decode, or damaged.

    Args:
        data: the whole file.
        header: its own.
        divisor: 1, or one of `SCALES`: sides are divided by it, halves rounded up.
        bottom: rows that are needed, of those stored; what is below may be left out, and damage there unnoticed.
            None: all.

    Returns:
        uint8 [H, W, 4], in memory that is this thread's: valid until it decodes its next picture.
    """
    if not agrees(header.sampling, header.progressive):
        return None
    kept = header.height if bottom is None else _enough(header, bottom)
    if kept < header.height and data.endswith(_END) and not header.progressive:
        data = b"".join((data[: header.height_at], kept.to_bytes(2, "big"), data[header.height_at + 2 :]))
    else:
        kept = header.height
    height, width = -(-kept // divisor), -(-header.width // divisor)
    try:
        return simplejpeg.decode_jpeg(
            data,
            "RGBX",
            min_height=height,
            min_width=width,
            buffer=_memory(4 * height * width),
            strict=kept == header.height,  # else the rest of the file is a warning
        )
    except ValueError:  # every warning of the library is one: damage, which Pillow takes or refuses
        return None


def _enough(header: Header, bottom: int) -> int:
    """Rows after which the first `bottom` are as in the whole picture: colours mix with those of the next block."""
    return min(header.height, bottom - bottom % _BLOCK + 2 * _BLOCK)


class _Memory(threading.local):
    """Where a thread's pictures are decoded: fresh memory for each would cost a tenth of the time."""

    pixels = np.empty(0, np.uint8)


_LOCAL = _Memory()


def _memory(num_bytes: int) -> np.ndarray:
    if num_bytes > _MOST_KEPT:
        return np.empty(num_bytes, np.uint8)
    if len(_LOCAL.pixels) < num_bytes:
        _LOCAL.pixels = np.empty(num_bytes, np.uint8)
    return _LOCAL.pixels


@lru_cache(maxsize=16)
def agrees(sampling: Sampling, progressive: bool) -> bool:
    """Whether both libraries here decode JPEGs of a kind to the same pixels, by trying."""
    specimens = _specimens(sampling, progressive=progressive)
    return bool(specimens) and all(_decode_alike(data) for data in specimens)


def _specimens(sampling: Sampling, *, progressive: bool) -> list[bytes]:
    """JPEGs of a kind whose sides are no multiple of anything; none where nobody here writes such."""
    noise_HWC = np.random.default_rng(0).integers(0, 256, (43, 61, 3), dtype=np.uint8)
    if sampling in ("440", "411"):
        return [] if progressive else [simplejpeg.encode_jpeg(noise_HWC, colorsubsampling=sampling)]
    image = Image.fromarray(noise_HWC)
    file = io.BytesIO()
    if sampling == "grey":
        image.convert("L").save(file, "JPEG", progressive=progressive)
    else:
        image.save(file, "JPEG", progressive=progressive, subsampling=f"4:{sampling[1]}:{sampling[2]}")
    data = file.getvalue()
    if not progressive:
        return [data]
    # One that ends after its first scans is whole, too, and blocks are smoothed, differently by different versions.
    starts = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    return [data, *(data[:start] + b"\xff\xd9" for start in starts[1:])]


def _decode_alike(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    try:
        return np.array_equal(simplejpeg.decode_jpeg(data, "RGBX")[..., :3], expected)
    except ValueError:
        return False
