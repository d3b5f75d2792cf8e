"""Pictures as the tool that published reinforcements saw them, in files that our decoder reads to the same pixels.

That tool drops transparency and shows the colour beneath, and takes a picture as it is stored, whichever way its EXIF
says up is; our decoder lays transparency on white and turns the picture. Where the two differ, the tool's pixels are
stored as PNG. All other pictures keep their bytes.
"""

from __future__ import annotations

import io

from PIL import Image

from pocketclip.data.picture import PictureError, decode, probe
from pocketclip.data.sample import IMAGE_EXTENSIONS

_QUALITY = 95  # img2dataset's


def as_published(data: bytes, *, name: str, longest_px: int | None = None) -> tuple[bytes, str, Image.Image]:
    """A picture for replaying published views.

    Args:
        data: the encoded picture, as it was downloaded.
        name: what to call it in an error.
        longest_px: shrink a picture whose longer side has more pixels than this, as img2dataset does: sides times the
            quotient, rounded, and stored as JPEG again.

    Returns:
        The encoded picture to store, its extension, and its decoded pixels.

    Raises:
        PictureError: it cannot be decoded.
    """
    picture = decode(data, name=name)
    extension, _, _ = probe(data, name=name)
    seen = _as_stored(data, name=name) or picture
    if longest_px is not None and max(seen.size) > longest_px:
        return _shrunk(seen, longest_px=longest_px)
    if seen.size != picture.size or seen.tobytes() != picture.tobytes() or extension not in IMAGE_EXTENSIONS:
        return _saved(seen, "PNG"), "png", seen
    return data, extension, picture


def _as_stored(data: bytes, *, name: str) -> Image.Image | None:
    """The picture without regard to transparency and orientation; None where it has neither."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        plain = image.mode in ("L", "RGB") and "transparency" not in image.info
        if plain and not image.info.keys() & {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}:
            return None
        try:
            return image.convert("RGBA").convert("RGB")
        except ValueError as error:
            raise PictureError(
                f"{name}: the published tool could not read a picture of mode {image.mode}"
            ) from error


def _shrunk(picture: Image.Image, *, longest_px: int) -> tuple[bytes, str, Image.Image]:
    factor = longest_px / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    data = _saved(picture.resize(size, Image.Resampling.BOX), "JPEG")
    return data, "jpg", decode(data, name="a shrunk picture")


def _saved(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, quality=_QUALITY)
    return file.getvalue()
