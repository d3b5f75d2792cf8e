"""An uploaded picture: refused by its first bytes or its header before anything is decoded."""

from __future__ import annotations

from PIL import Image

from pocketclip.data.picture import PictureError, decode, probe
from pocketclip.search.media import MediaLimits, read_media
from pocketclip.search.server.config import Limits
from pocketclip.search.server.problems import Refusal

_NAME = "the picture"
_HEIF = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def read_upload(data: bytes, *, limits: Limits) -> Image.Image:
    """An upright RGB picture.

    Raises:
        Refusal: 413 for too many bytes or pixels, 415 for what is no picture, 422 for a damaged one.
    """
    if not data:
        raise Refusal(422, "the picture has zero bytes: send the file's content in the field `picture`")
    if len(data) > limits.upload_bytes:
        raise Refusal(413, f"the picture is larger than {limits.upload_bytes / 2**20:g} MiB")
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        return _read_heif(data, limits=limits)
    try:
        _, width, height = probe(data, name=_NAME)
    except PictureError as error:
        sentence = str(error)
        raise Refusal(413 if "bomb" in sentence else 415, sentence) from error
    if width * height > limits.upload_px:
        raise Refusal(
            413, f"the picture has {width} x {height} pixels, more than {limits.upload_px:,}: shrink it"
        )
    try:
        return decode(data, name=_NAME)
    except PictureError as error:
        raise Refusal(422, str(error)) from error


def _read_heif(data: bytes, *, limits: Limits) -> Image.Image:
    allowed = MediaLimits(max_bytes=limits.upload_bytes, max_pixels=limits.upload_px)
    try:
        media = read_media(data, name=_NAME, limits=allowed)
        return next(iter(media.frames)).image
    except ImportError as error:
        raise Refusal(415, str(error)) from error
    except ValueError as error:
        raise Refusal(422, str(error)) from error
