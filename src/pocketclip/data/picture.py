"""Bytes to an upright RGB picture; the only decoder of the project."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pocketclip.data import jpeg

Decoding = Literal["exact", "fast"]
"""Whether pixels are Pillow's, or JPEGs may be scaled down while they are decoded."""

MAX_PIXELS = 64_000_000
"""Pictures whose header claims more pixels than this are refused before decoding."""

EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tiff",
    "PPM": "ppm",
    "AVIF": "avif",
    "JPEG2000": "jp2",
    "ICO": "ico",
}
"""Formats that are decoded (PIL's name -> extension). Others, PostScript among them, are never tried."""

_ORIENTATION_TAG = 0x0112
_SAY_ORIENTATION = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # where PIL looks for it
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LIES_ON_ITS_SIDE = tuple(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))

# What PIL's plugins let through on damaged files (found by fuzzing, besides their documented OSError).
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class PictureError(ValueError):
    """A picture that cannot be used; the sentence names it and says what is wrong."""


def decode(data: bytes, *, name: str) -> Image.Image:
    """Decodes an encoded picture.

    An animation gives its first frame. Colour profiles are ignored, as CLIP's training pipelines do. Every mode
    becomes RGB as `to_rgb` says, and EXIF orientation is applied; the result no longer carries it.

    Args:
        data: the encoded picture, in one of the formats of `EXTENSIONS`.
        name: what to call the picture in an error (a path, or "shard.tar: member").

    Returns:
        A loaded picture of mode RGB, upright.

    Raises:
        PictureError: zero bytes, an unknown format, damage, or more than `MAX_PIXELS` pixels.
    """
    return open_picture(data, name=name).whole()


def open_picture(data: bytes, *, name: str) -> Picture:
    """Opens a picture to look at a part of it: as `decode`, but most JPEGs are decoded when pixels are asked for.

    Raises:
        PictureError: as of `decode`; damage behind the header of a JPEG may show only later.
    """
    header = jpeg.read_header(data)
    if header is None or header.width * header.height > MAX_PIXELS:
        return Picture(data, name=name, header=None)
    if header.is_bare:
        return Picture(data, name=name, header=header)
    with _quiet_pillow():
        turn = _turn(_open(data, name=name))
    return Picture(data, name=name, header=header, turn=turn)


@dataclass(frozen=True, kw_only=True)
class Region:
    """Pixels of a part of a picture.

    Attributes:
        image: RGB.
        box: left, top, right, bottom of the part in `image`, pixels; None where it is all of it.
    """

    image: Image.Image
    box: tuple[float, float, float, float] | None = None


class Picture:
    """An upright RGB picture; made by `open_picture`.

    Attributes:
        size: width and height in pixels.
    """

    def __init__(
        self, data: bytes, *, name: str, header: jpeg.Header | None, turn: Image.Transpose | None = None
    ) -> None:
        self._data = data
        self._name = name
        self._header = header
        self._turn = turn
        self._image: Image.Image | None = None
        if header is None:
            self._image = _by_pillow(data, name=name)
            self.size = self._image.size
        else:
            self.size = (header.width, header.height)
            if turn in _LIES_ON_ITS_SIDE:
                self.size = (header.height, header.width)

    def whole(self) -> Image.Image:
        """All of it.

        Raises:
            PictureError: it is damaged.
        """
        if self._image is None:
            pixels_HWX = self._pixels()
            if pixels_HWX is None:
                self._image = _by_pillow(self._data, name=self._name)
            else:
                image = _cut(pixels_HWX, (0, 0, *pixels_HWX.shape[:2]))
                self._image = image if self._turn is None else image.transpose(self._turn)
            self._data = b""
        return self._image

    def region(
        self, crop: tuple[int, int, int, int], *, at_least: int = 0, decoding: Decoding = "exact"
    ) -> Region:
        """A part of it.

        Args:
            crop: top, left, height and width in pixels of the picture.
            at_least: sides in pixels that "fast" leaves to the part.
            decoding: "exact" for the pixels of `whole`; "fast" divides the sides of a JPEG by 2, 4 or 8 where it can,
                and overlooks damage below the part.

        Raises:
            PictureError: it is damaged.
        """
        top, left, height, width = crop
        if self._image is None and self._turn is None:
            fast = decoding == "fast"
            divisor = _divisor(min(height, width), at_least) if fast else 1
            pixels_HWX = self._pixels(divisor=divisor, bottom=top + height if fast else None)
            if pixels_HWX is not None:
                return _scaled_region(pixels_HWX, crop, divisor=divisor)
        return Region(image=self.whole().crop((left, top, left + width, top + height)))

    def _pixels(self, *, divisor: int = 1, bottom: int | None = None) -> np.ndarray | None:
        assert self._header is not None
        return jpeg.decode_pixels(self._data, self._header, divisor=divisor, bottom=bottom)


def _divisor(side: int, at_least: int) -> int:
    return next((scale for scale in jpeg.SCALES if side >= scale * max(at_least, 1)), 1)


def _scaled_region(pixels_HWX: np.ndarray, crop: tuple[int, int, int, int], *, divisor: int) -> Region:
    if divisor == 1:
        return Region(image=_cut(pixels_HWX, crop))
    top, left, height, width = crop
    bottom, right = top + height, left + width
    first_row, first_column = top // divisor, left // divisor
    rows, columns = -(-bottom // divisor) - first_row, -(-right // divisor) - first_column
    return Region(
        image=_cut(pixels_HWX, (first_row, first_column, rows, columns)),
        box=(
            left / divisor - first_column,
            top / divisor - first_row,
            right / divisor - first_column,
            bottom / divisor - first_row,
        ),
    )


def _cut(pixels_HWX: np.ndarray, crop: tuple[int, int, int, int]) -> Image.Image:
    """A copy of a part; only its pixels are copied, and once."""
    top, left, height, width = crop
    line = 4 * pixels_HWX.shape[1]
    start = top * line + 4 * left
    return Image.frombytes("RGB", (width, height), pixels_HWX.reshape(-1)[start:], "raw", "RGBX", line, 1)


def _by_pillow(data: bytes, *, name: str) -> Image.Image:
    with _quiet_pillow():
        image = _open(data, name=name)
        try:
            image.load()
        except _DAMAGE as error:
            raise PictureError(f"{name}: the picture is damaged or cut off ({_one_line(error)})") from error
        try:
            return to_rgb(image, name=name)
        except _DAMAGE as error:
            if isinstance(error, PictureError):
                raise
            raise PictureError(
                f"{name}: cannot convert colour mode {image.mode} to RGB ({_one_line(error)})"
            ) from error


def probe(data: bytes, *, name: str) -> tuple[str, int, int]:
    """Reads the header only.

    Args:
        data: the encoded picture, or enough of its head.
        name: what to call the picture in an error.

    Returns:
        Extension by content ("jpg", "png", "webp", "gif", ...), width and height in pixels as stored
        (before EXIF orientation).

    Raises:
        PictureError: zero bytes, an unknown format, a damaged header, or more than `MAX_PIXELS` pixels.
    """
    with _quiet_pillow():
        image = _open(data, name=name)
        assert image.format is not None
        return EXTENSIONS[image.format], image.width, image.height


def _open(data: bytes, *, name: str) -> ImageFile.ImageFile:
    if not data:
        raise PictureError(f"{name}: the picture has zero bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(f for f in EXTENSIONS if f in _supported()))
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: not a picture in a known format (jpg, png, webp, gif, ...)") from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name}: the header claims far more than {MAX_PIXELS:,} pixels, refused as a picture bomb"
        ) from error
    except _DAMAGE as error:
        raise PictureError(f"{name}: the picture's header is damaged ({_one_line(error)})") from error
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(
            f"{name}: the header claims {image.width} x {image.height} pixels, "
            f"more than {MAX_PIXELS:,}: refused as a picture bomb (resize it first if it is real)"
        )
    if image.width < 1 or image.height < 1:
        raise PictureError(f"{name}: the picture is {image.width} x {image.height} pixels")
    return image


def _supported() -> frozenset[str]:
    if not _SUPPORTED:
        Image.init()
        _SUPPORTED.update(Image.OPEN)
    return frozenset(_SUPPORTED)


_SUPPORTED: set[str] = set()


def to_rgb(image: Image.Image, *, name: str) -> Image.Image:
    """Any picture to an upright RGB one, as `decode` does it; an upright RGB picture is returned as it is.

    | mode | becomes |
    |---|---|
    | 1, L | grey in all three channels |
    | I;16, I | 16-bit grey, divided by 257 and rounded; what is above 65,535 is white |
    | P, RGBX, CMYK, YCbCr, HSV, LAB | PIL's `convert("RGB")` |
    | LA, La, PA, RGBA, RGBa; P, L, I;16, RGB with a transparent colour | laid on white |
    | F | refused: its range is unknown |

    EXIF orientation, 1 to 8, is applied and removed, so that doing it twice is doing it once. Orientation that is
    unreadable or impossible counts as none.

    Args:
        image: a picture of any PIL mode, loaded or not.
        name: what to call it in an error.

    Raises:
        PictureError: floating-point pixels.
        OSError: PIL cannot load the picture.
    """
    image.load()  # TIFF turns itself here and forgets its tag
    turn = _turn(image)
    picture = _flat(image, name=name)
    if turn is None:
        return picture
    picture = picture.transpose(turn)
    for key in _SAY_ORIENTATION:
        picture.info.pop(key, None)
    return picture


def _turn(image: Image.Image) -> Image.Transpose | None:
    with _quiet_pillow() if image.info else nullcontext():  # muting takes longer than finding no EXIF
        try:
            return _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
        except _DAMAGE:
            return None  # unreadable EXIF says nothing about the pixels


def _flat(image: Image.Image, *, name: str) -> Image.Image:
    """RGB, whatever way the picture lies."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # I, I;16 and its byte orders
        values = np.asarray(image)
        grey = np.clip(np.rint(values / 257.0), 0, 255).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise PictureError(f"{name}: floating-point pixels have no agreed range; save it as 8-bit RGB")
    if image.has_transparency_data:
        layers = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(layers, mask=layers)
        return canvas
    return image.convert("RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Quiet:
    """Counts the threads now inside PIL, so that its warnings are muted once and restored once."""

    lock = threading.Lock()
    depth = 0
    muted: warnings.catch_warnings | None = None


@contextmanager
def _quiet_pillow() -> Generator[None, None, None]:
    # PIL reports bombs and odd metadata as warnings. catch_warnings alone is not safe when several
    # threads overlap (the last to leave would restore a muted state), hence the count.
    with _Quiet.lock:
        _Quiet.depth += 1
        if _Quiet.depth == 1:
            _Quiet.muted = warnings.catch_warnings()
            _Quiet.muted.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.depth -= 1
            if _Quiet.depth == 0:
                assert _Quiet.muted is not None
                _Quiet.muted.__exit__(None, None, None)
                _Quiet.muted = None
