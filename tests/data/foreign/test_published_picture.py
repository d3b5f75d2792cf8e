"""Pictures as the published tool saw them: our decoder reads what is stored to that tool's own pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tests.published_sets import draw_picture

from pocketclip.data.foreign.published_picture import as_published
from pocketclip.data.picture import PictureError, decode


def published_pixels(data: bytes) -> Image.Image:
    """The published tool's own line."""
    return Image.open(io.BytesIO(data)).convert("RGBA").convert("RGB")


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return draw_picture(1, kind=kind, exif=exif)


def see_through() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    return Image.fromarray(levels, "RGBA")


PICTURES = {
    "jpeg": draw_picture(0),
    "png": draw_picture(0, kind="PNG"),
    "webp": draw_picture(0, kind="WEBP"),
    "grey": encoded(Image.open(io.BytesIO(draw_picture(2))).convert("L")),
    "palette": encoded(Image.open(io.BytesIO(draw_picture(2))).convert("P")),
    "cmyk": encoded(Image.open(io.BytesIO(draw_picture(2))).convert("CMYK"), "JPEG"),
    "upright": turned(1),
    **{f"turned {orientation}": turned(orientation) for orientation in range(2, 9)},
    "turned webp": turned(6, "WEBP"),
    "see-through": encoded(see_through()),
    "see-through grey": encoded(see_through().convert("LA")),
    "see-through webp": encoded(see_through(), "WEBP", lossless=True),
    "a transparent colour": encoded(Image.new("RGB", (9, 8), (1, 2, 3)), transparency=(1, 2, 3)),
    "gif": encoded(Image.open(io.BytesIO(draw_picture(2))).convert("P"), "GIF"),
}
KEPT = {"jpeg", "png", "webp", "grey", "palette", "cmyk", "upright"}


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_stored_decodes_to_what_the_tool_saw(name):
    data = PICTURES[name]
    stored, extension, picture = as_published(data, name=name)
    expected = published_pixels(data)
    assert decode(stored, name=name).tobytes() == picture.tobytes() == expected.tobytes()
    assert picture.size == expected.size
    assert (stored == data) == (name in KEPT)
    assert Image.open(io.BytesIO(stored)).format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension]
    again, _, _ = as_published(stored, name=name)
    assert again == stored


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((96, 72), 48, (48, 36)),
        ((72, 96), 50, (38, 50)),
        ((96, 72), 96, (96, 72)),
        ((96, 72), 97, (96, 72)),
        ((400, 8), 20, (20, 1)),
    ],
)
def test_larger_pictures_are_shrunk_and_smaller_ones_left(size, longest, expected):
    data = draw_picture(3, width=size[0], height=size[1])
    stored, extension, picture = as_published(data, name="x", longest_px=longest)
    assert picture.size == decode(stored, name="x").size == expected
    assert (stored == data) == (max(size) <= longest)
    assert extension == "jpg"
    assert as_published(stored, name="x", longest_px=longest)[0] == stored


def test_shrinking_is_the_mean_of_what_it_covers():
    image = Image.new("RGB", (64, 64), (200, 100, 0))
    image.paste((0, 100, 200), (0, 0, 64, 32))
    _, _, picture = as_published(encoded(image), name="x", longest_px=16)
    pixels = np.asarray(picture, dtype=int)
    assert np.abs(pixels[:6] - (0, 100, 200)).max() < 12
    assert np.abs(pixels[10:] - (200, 100, 0)).max() < 12


@pytest.mark.parametrize("data", [b"", b"no picture", draw_picture(0)[:200]])
def test_damage_is_refused(data):
    with pytest.raises(PictureError, match="the picture"):
        as_published(data, name="the picture")
