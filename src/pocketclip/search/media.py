"""Bytes of whatever people keep, to pictures: stills in every usual format, previews of raw files, frames of videos."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pocketclip.data import jpeg, picture
from pocketclip.search.exif import Exif, read_exif
from pocketclip.search.source import RAW_SUFFIXES, VIDEO_SUFFIXES

if TYPE_CHECKING:
    import rawpy

    from pocketclip.search.store import Kind

THUMBNAIL_PX = 320
"""Longest side of a thumbnail."""

_HEIF = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF = frozenset((b"avif", b"avis"))
_UPRIGHT = {
    2: (0, True),
    3: (180, False),
    4: (180, True),
    5: (270, True),
    6: (270, False),
    7: (90, True),
    8: (90, False),
}
_LYING = (5, 6, 7, 8)
_RAW_TURNS = {3: 3, 5: 8, 6: 6}  # LibRaw's flip -> EXIF's orientation
_SCALED_PIXELS = 16_000_000  # what a very large JPEG is divided down to
_SMALL_PREVIEW_PX = 640  # of the longest side: a smaller preview of a raw file is not worth having


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """What is refused, before it is decoded, so that no file fills the memory or holds everything up.

    Attributes:
        max_bytes: of a still; videos are read piece by piece.
        max_pixels: of a still, at most those of the training path. Only plain JPEGs may have more, see
            `max_jpeg_pixels`.
        max_jpeg_pixels: of a JPEG that can be divided by 2, 4 or 8 while it is decoded, as cameras with 100
            megapixels write them.
        max_frames: of a video.
        max_gap_s: seconds of a video between two frames, where `max_frames` allows.
        max_seconds: of work for a video; what was found till then is used.
    """

    max_bytes: int = 2**29
    max_pixels: int = picture.MAX_PIXELS
    max_jpeg_pixels: int = 300_000_000
    max_frames: int = 240
    max_gap_s: float = 10.0
    max_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_jpeg_pixels", "max_frames", "max_gap_s", "max_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be more than 0")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture to search by.

    Attributes:
        image: upright RGB. Of a video, and of a very large JPEG, smaller than the original.
        at_s: seconds from the start of a video; None for a still.
    """

    image: Image.Image
    at_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Media:
    """A file, decoded.

    Attributes:
        kind: what it is by its content.
        frames: one of a still; those of a video come while it is decoded, once, and may raise ValueError.
        width: pixels of the original, upright.
        height: likewise.
        taken: local time, ISO 8601 to the second, where the file says it.
        latitude: degrees, where the file says it.
        longitude: degrees.
    """

    kind: Kind
    frames: Iterable[Frame]
    width: int
    height: int
    taken: str | None = None
    latitude: float | None = None
    longitude: float | None = None


def read_media(source: bytes | Path, *, name: str, limits: MediaLimits | None = None) -> Media:
    """Decodes a still, or opens a video.

    JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP and the rest of `data.picture` become the very pixels that training sees: the
    first frame of an animation, 16 bits as 8, transparency on white, upright by EXIF. HEIC needs pillow-heif, raw files
    rawpy (their preview is used, or a half-size development where there is none of use), videos PyAV.

    Args:
        source: the encoded file, or its path; videos should come by path, they are not read whole then.
        name: what to call it in an error; its ending tells raw files from TIFF.
        limits: None for the defaults.

    Raises:
        ValueError: it is damaged, of an unknown format, or larger than a limit; the sentence names it.
        ImportError: the package for this format is not installed; the sentence says how to install it.
        OSError: the file cannot be read.
    """
    limits = limits or MediaLimits()
    if isinstance(source, Path):
        if _is_video(_head(source), name=name):
            return _read_video(source, name=name, limits=limits)
        num_bytes = source.stat().st_size
        if num_bytes > limits.max_bytes:
            raise _too_long(num_bytes, name=name, limits=limits)
        source = source.read_bytes()
    elif _is_video(source, name=name):
        return _read_video(source, name=name, limits=limits)
    if len(source) > limits.max_bytes:
        raise _too_long(len(source), name=name, limits=limits)
    if _is_raw(source, name=name):
        return _read_raw(source, name=name, limits=limits)
    brands = _brands(source)
    if brands & _HEIF and not brands & _AVIF:
        return _read_heif(source, name=name, limits=limits)
    return _read_picture(source, name=name, limits=limits)


def thumbnail(image: Image.Image, *, longest_px: int = THUMBNAIL_PX) -> bytes:
    """A small JPEG of a picture; smaller pictures keep their size."""
    scale = min(1.0, longest_px / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _brands(data: bytes) -> frozenset[bytes]:
    """Names of formats at the head of an ISO media file (ISO/IEC 14496-12, section 4.3)."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(data[:4], "big"), len(data), 256)
    return frozenset((data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))))


def _is_video(head: bytes, *, name: str) -> bool:
    if head[4:8] == b"ftyp":
        return not _brands(head) & (_HEIF | _AVIF | {b"crx "})
    if head[:4] == b"\x1aE\xdf\xa3" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    return PurePath(name).suffix.lower() in VIDEO_SUFFIXES


def _is_raw(data: bytes, *, name: str) -> bool:
    if b"crx " in _brands(data):
        return True
    return PurePath(name).suffix.lower() in RAW_SUFFIXES and not data.startswith((b"\xff\xd8", b"\x89PNG"))


def _too_long(num_bytes: int, *, name: str, limits: MediaLimits) -> ValueError:
    return ValueError(f"{name}: {num_bytes:,} bytes, more than the {limits.max_bytes:,} that are read")


def _too_large(width: int, height: int, *, name: str, most: int) -> ValueError:
    return ValueError(
        f"{name}: the header claims {width} x {height} pixels, more than {most:,}: refused as a picture bomb"
    )


def _read_picture(data: bytes, *, name: str, limits: MediaLimits) -> Media:
    exif = read_exif(data)
    header = jpeg.read_header(data)
    if header is not None and not header.progressive:
        num = header.width * header.height
        if min(limits.max_pixels, picture.MAX_PIXELS) < num <= limits.max_jpeg_pixels:
            return _read_large_jpeg(data, header, exif=exif, name=name)
    if limits.max_pixels < picture.MAX_PIXELS:
        _, width, height = picture.probe(data, name=name)
        if width * height > limits.max_pixels:
            raise _too_large(width, height, name=name, most=limits.max_pixels)
    image = picture.decode(data, name=name)
    return _still(image, exif=exif)


def _read_large_jpeg(data: bytes, header: jpeg.Header, *, exif: Exif, name: str) -> Media:
    num_pixels = header.width * header.height
    divisor = next((d for d in sorted(jpeg.SCALES) if num_pixels <= d * d * _SCALED_PIXELS), max(jpeg.SCALES))
    pixels_HWX = jpeg.decode_pixels(data, header, divisor=divisor)
    if pixels_HWX is None:
        raise ValueError(f"{name}: the picture is damaged or cut off")
    image = _turned(Image.fromarray(np.ascontiguousarray(pixels_HWX[..., :3])), exif.orientation)
    size = (header.height, header.width) if exif.orientation in _LYING else (header.width, header.height)
    return _still(image, exif=exif, size=size)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """An upright picture, by EXIF's orientation."""
    if orientation not in _UPRIGHT:
        return image
    degrees, mirrored = _UPRIGHT[orientation]
    image = image.rotate(degrees, expand=True)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image


def _still(
    image: Image.Image, *, exif: Exif, kind: Kind = "picture", size: tuple[int, int] | None = None
) -> Media:
    width, height = size or image.size
    return Media(
        kind=kind,
        frames=(Frame(image=image),),
        width=width,
        height=height,
        taken=exif.taken,
        latitude=exif.latitude,
        longitude=exif.longitude,
    )


def _read_heif(data: bytes, *, name: str, limits: MediaLimits) -> Media:
    heif = _import_heif(name)
    with _damage_named(name):
        found = heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    width, height = found.size
    if width * height > limits.max_pixels:
        raise _too_large(width, height, name=name, most=limits.max_pixels)
    with _damage_named(name):
        image: Image.Image = found.to_pillow()
    image.info.clear()  # the file's own rotation has been applied: EXIF's is a copy of it
    return _still(picture.to_rgb(image, name=name), exif=read_exif(data))


@contextmanager
def _damage_named(name: str) -> Generator[None, None, None]:
    """What pillow-heif raises, as one sentence."""
    try:
        yield
    except (EOFError, SyntaxError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: the picture is damaged or cut off ({reason})") from error


def _read_raw(data: bytes, *, name: str, limits: MediaLimits) -> Media:
    raw_library = _import_rawpy(name)
    try:
        with raw_library.imread(io.BytesIO(data)) as raw:
            sizes, turn = raw.sizes, _RAW_TURNS.get(raw.sizes.flip, 1)
            if sizes.raw_width * sizes.raw_height > 4 * limits.max_pixels:
                raise _too_large(sizes.raw_width, sizes.raw_height, name=name, most=4 * limits.max_pixels)
            image, exif = _preview(raw, raw_library, turn=turn, name=name)
            if image is None or max(image.size) < min(_SMALL_PREVIEW_PX, max(sizes.width, sizes.height) // 2):
                # cameras' own white balance: the file was not made for us to judge its colours
                image = Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8))
    except raw_library.LibRawError as error:
        raise ValueError(f"{name}: the raw file cannot be developed ({error})") from error
    said = read_exif(data)
    exif = exif if said == Exif() else replace(said, taken=said.taken or exif.taken)
    lying = turn in _LYING
    size = (sizes.height, sizes.width) if lying else (sizes.width, sizes.height)
    return _still(image, exif=exif, kind="raw", size=size)


def _preview(
    raw: rawpy.RawPy, library: ModuleType, *, turn: int, name: str
) -> tuple[Image.Image | None, Exif]:
    """The picture that the camera put into a raw file, upright, and what is written in that."""
    try:
        thumb = raw.extract_thumb()
    except (library.LibRawNoThumbnailError, library.LibRawUnsupportedThumbnailError):
        return None, Exif()
    if not isinstance(thumb.data, bytes):
        return _turned(Image.fromarray(thumb.data).convert("RGB"), turn), Exif()
    exif = read_exif(thumb.data)
    try:
        image = picture.decode(thumb.data, name=name)
    except ValueError:
        return None, exif
    return (_turned(image, turn) if exif.orientation == 1 else image), exif


def _read_video(source: bytes | Path, *, name: str, limits: MediaLimits) -> Media:
    from pocketclip.search.video import open_video

    return open_video(source, name=name, limits=limits)


def _import_heif(name: str) -> ModuleType:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImportError(f"{name}: HEIC needs pillow-heif: pip install 'pocketclip[photos]'") from error
    return pillow_heif


def _import_rawpy(name: str) -> ModuleType:
    try:
        import rawpy
    except ImportError as error:
        raise ImportError(f"{name}: raw files need rawpy: pip install 'pocketclip[photos]'") from error
    return rawpy
