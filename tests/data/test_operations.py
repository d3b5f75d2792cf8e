"""What views do to pixels: two passes of a resize give the pixels of Pillow's one call, of whichever release."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, __version__

from pocketclip.data.operations import OPERATIONS, jitter, magnitude, operate, resize

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


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(-30, 30),
    st.sampled_from([1, 64, 255]),
    st.integers(0, 99),
)
def test_sharpness_is_pillows(width, height, strength, step, seed):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    image = Image.fromarray((levels // step * step).astype(np.uint8))
    number = OPERATIONS.index("sharpness")
    factor = 1.0 + magnitude(number, strength, num_bins=31, side=24)
    expected = ImageEnhance.Sharpness(image).enhance(factor)
    assert operate(image, number, strength, num_bins=31, side=24).tobytes() == expected.tobytes()


@given(st.integers(1, 90), st.integers(1, 90), st.data())
def test_a_box_of_all_is_no_box_and_a_box_of_whole_pixels_nearly_a_crop(width, height, data):
    image = noise(width, height)
    options = {"interpolation": "bilinear", "order": "pillow_13"}
    whole = resize(image, 20, **options)
    assert resize(image, 20, box=(0, 0, width, height), **options).tobytes() == whole.tobytes()
    right, bottom = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    shown = resize(image, 20, box=(0, 0, right, bottom), **options)
    crop = resize(image.crop((0, 0, right, bottom)), 20, **options)
    inside = np.abs(np.asarray(shown).astype(int) - np.asarray(crop))[:10, :10]
    # Only at the far border does the one look beyond it.
    assert inside.max() == 0 or min(right, bottom) < 20


@pytest.mark.parametrize(("width", "height"), [(200, 300), (40, 300), (40, 50)])
def test_a_quick_resize_shrinks_otherwise_and_grows_the_same(width, height):
    image = noise(width, height)
    exact, quick = (
        resize(image, 64, interpolation="bicubic", order="pillow_13", quick=quick) for quick in (False, True)
    )
    if max(width, height) <= 64:
        assert quick.tobytes() == exact.tobytes()
    else:
        difference = np.abs(np.asarray(quick).astype(int) - np.asarray(exact))
        assert 0 < difference.mean() < 12  # of noise, whose every pixel is another
    options = {"interpolation": "bilinear", "order": "pillow_12"}
    assert resize(image, 64, quick=True, **options).tobytes() == resize(image, 64, **options).tobytes()
