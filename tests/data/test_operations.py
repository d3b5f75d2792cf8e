"""What views do to pixels: two passes of a resize give the pixels of Pillow's one call, of whichever release."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, __version__

from pocketclip.data.operations import jitter, resize

INSTALLED = "pillow_13" if int(__version__.split(".")[0]) >= 13 else "pillow_12"
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.sampled_from(sorted(FILTERS)))
def test_two_passes_give_the_pixels_of_the_installed_pillow(width, height, size, interpolation):
    image = noise(width, height)
    expected = image.resize((size, size), FILTERS[interpolation])
    resized = resize(image, size, interpolation=interpolation, order=INSTALLED)
    assert resized.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("width", "height", "vertical_first"),
    [
        *[(40, 48, False), (40, 49, True), (50, 68, False), (50, 69, True)],
        *[(31, 33, True), (33, 34, False), (60, 50, False), (20, 30, False), (40, 20, False)],
    ],
)
def test_the_order_of_passes_is_that_of_the_named_pillow(width, height, vertical_first):
    image, size = noise(width, height), 32
    rows, columns = (image.resize(first, FILTERS["bicubic"]) for first in ((size, height), (width, size)))
    older = rows.resize((size, size), FILTERS["bicubic"]).tobytes()
    newer = columns.resize((size, size), FILTERS["bicubic"]).tobytes() if vertical_first else older
    assert resize(image, size, interpolation="bicubic", order="pillow_12").tobytes() == older
    assert resize(image, size, interpolation="bicubic", order="pillow_13").tobytes() == newer
    assert (older != newer) == vertical_first


def test_hue_turns_whole_circles_and_leaves_grey_alone():
    grey = Image.new("RGB", (4, 4), (90, 90, 90))
    assert jitter(grey, order=0, strengths=(1000, 1000, 1000, 50)).tobytes() == grey.tobytes()
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    turned = jitter(red, order=0, strengths=(1000, 1000, 1000, 85)).getpixel((0, 0))
    assert turned[1] == 255  # a third of a turn further is green
    assert max(turned[0], turned[2]) < 10
    one, other = (jitter(red, order=0, strengths=(1000, 1000, 1000, shift)) for shift in (128, -128))
    assert one.tobytes() == other.tobytes()
