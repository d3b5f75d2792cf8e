"""What a view does to pixels: resize, RandAugment's operations, colour jitter, erasing, all Pillow's own.

Every strength is an integer, and every result depends on the picture, the integers and the side alone: the operations
used here agree to the last bit in Pillow 10.4 to 13.0. One of Pillow's does not: `resize` in both directions at once,
whose order of passes changed in 13.0. Hence the two passes of `resize`.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps, ImageStat

# RandAugment's operations; the position in this tuple is the number that is stored.
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
# Translation reaches this share of the picture's side at the largest magnitude (RandAugment's published search space).
_MAX_TRANSLATION = 150.0 / 331.0
# The magnitude at the largest bin of operations that have a sign; a translation's is a share of the side.
_LARGEST = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": _MAX_TRANSLATION,
    "translate_y": _MAX_TRANSLATION,
    "rotate": 30.0,
    "brightness": 0.9,
    "color": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
}

Interpolation = Literal["bilinear", "bicubic"]
ResizeOrder = Literal["pillow_13", "pillow_12"]
"""Which Pillow's order of passes a resize has: of 13.0 and newer, or of 12.3 and older."""
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

JITTERS = ("brightness", "contrast", "saturation", "hue")
JITTER_ORDERS = tuple(itertools.permutations(range(len(JITTERS))))
"""The orders of `JITTERS`; the position in this tuple is the number that is stored."""
FACTOR_STEPS = 1000
"""A jitter's factor is stored in so many steps of 1."""
HUE_STEPS = 256
"""A shift of hue is stored in so many steps of a full turn, Pillow's own."""
SIDE_STEPS = 1024
"""An erased rectangle is stored in so many steps of the view's side."""


def resize(
    image: Image.Image,
    size: int,
    *,
    interpolation: Interpolation,
    order: ResizeOrder,
    box: tuple[float, float, float, float] | None = None,
    quick: bool = False,
) -> Image.Image:
    """Resizes to a square, antialiased, in two passes of one direction each, which every Pillow computes alike.

    Between the passes pixels are rounded to integers, so that their order shows: Pillow took the horizontal one first
    up to 12.3; from 13.0 on it takes the vertical one first where the height shrinks by more than twice as many pixels
    as the width.

    Args:
        image: of any size.
        size: side of the square, pixels.
        interpolation: filter.
        order: of which Pillow.
        box: left, top, right, bottom of the part to resize; None for all of it.
        quick: shrink by Hamming's filter in place of the bicubic one, which looks at twice as many pixels.
    """
    left, top, right, bottom = box or (0, 0, *image.size)

    def chosen(length: float) -> Image.Resampling:
        shrinks = interpolation == "bicubic" and length > size
        return Image.Resampling.HAMMING if quick and shrinks else _RESAMPLING[interpolation]

    def vertical(image: Image.Image) -> Image.Image:
        return _resize_height(image, size, chosen(bottom - top), top, bottom)

    def horizontal(image: Image.Image) -> Image.Image:
        # Pillow's vertical pass is so much the faster one that turning the picture there and back pays.
        turned = image.transpose(Image.Transpose.TRANSPOSE)
        turned = _resize_height(turned, size, chosen(right - left), left, right)
        return turned.transpose(Image.Transpose.TRANSPOSE)

    shrinks = bottom - top - size
    if order == "pillow_13" and shrinks > 0 and shrinks > 2 * (right - left - size):
        return horizontal(vertical(image))
    return vertical(horizontal(image))


def _resize_height(
    image: Image.Image, height: int, resampling: Image.Resampling, begin: float, end: float
) -> Image.Image:
    return image.resize((image.width, height), resampling, box=(0, begin, image.width, end))


def is_signed(number: int) -> bool:
    """Whether operation `number` has a sign: it goes either way, with half the chance each."""
    return OPERATIONS[number] in _LARGEST


@lru_cache(maxsize=4096)
def magnitude(number: int, strength: int, *, num_bins: int, side: int) -> float:
    """The magnitude of bin `strength` of operation `number`, to the last bit torchvision's.

    Args:
        number: index into `OPERATIONS`.
        strength: bin, with the sign that the operation goes in.
        num_bins: number of bins.
        side: of the picture, or of the one whose pixels a translation counts.

    Returns:
        Shear: the tangent; translation: pixels, not yet cut to an integer; rotation: degrees; brightness, colour,
        contrast, sharpness: the factor less 1; posterize: bits kept; solarize: threshold; 0 for the rest.
    """
    operation, place = OPERATIONS[number], abs(strength)
    match operation:
        case "posterize":
            return float(8 - round(_linspace(0.0, 4.0, place, num=num_bins)))
        case "solarize":
            return _linspace(255.0, 0.0, place, num=num_bins)
        case "translate_x" | "translate_y":
            return math.copysign(_linspace(0.0, _MAX_TRANSLATION * side, place, num=num_bins), strength)
    if operation not in _LARGEST:
        return 0.0
    return math.copysign(_linspace(0.0, _LARGEST[operation], place, num=num_bins), strength)


def _linspace(start: float, end: float, place: int, *, num: int) -> float:
    """Value `place` of `num` even steps from `start` to `end`, rounded to float32 as torchvision's tables are."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(num - 1))
    if place < num / 2:
        return float(np.float32(np.float64(first) + step * place))
    return float(np.float32(np.float64(last) - step * (num - 1 - place)))


def operate(image: Image.Image, number: int, strength: int, *, num_bins: int, side: int) -> Image.Image:
    """Applies one of RandAugment's operations; arguments as of `magnitude`."""
    value = magnitude(number, strength, num_bins=num_bins, side=side)
    match OPERATIONS[number]:
        case "identity":
            return image
        case "shear_x":
            return _affine(image, (1.0, value, 0.0, 0.0, 1.0, 0.0))
        case "shear_y":
            return _affine(image, (1.0, 0.0, 0.0, value, 1.0, 0.0))
        case "translate_x":
            return _affine(image, (1.0, 0.0, -int(value), 0.0, 1.0, 0.0))
        case "translate_y":
            return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, -int(value)))
        case "rotate":
            return image.rotate(value, resample=Image.Resampling.NEAREST)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(1.0 + value)
        case "color":
            return ImageEnhance.Color(image).enhance(1.0 + value)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(1.0 + value)
        case "sharpness":
            return Image.blend(_smooth(image), image, 1.0 + value)
        case "posterize":
            return ImageOps.posterize(image, int(value))
        case "solarize":
            return ImageOps.solarize(image, math.ceil(value))
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
    raise AssertionError(number)


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.NEAREST)


def _smooth(image: Image.Image) -> Image.Image:
    """Pillow's SMOOTH, the mean of 3 x 3 pixels that counts the middle one five times; the border stays as it is.

    Pillow adds up float32 products and rounds. A sum of integers over 13 is never near a half, so that integers give
    the same.
    """
    if min(image.size) < 3:
        return image
    pixels_HWC = np.array(image)
    wide_HWC = pixels_HWC.astype(np.uint16)
    sums_HWC = wide_HWC[:, :-2] + wide_HWC[:, 1:-1]
    sums_HWC += wide_HWC[:, 2:]
    sums_HWC = sums_HWC[:-2] + sums_HWC[1:-1] + sums_HWC[2:]
    sums_HWC += 4 * wide_HWC[1:-1, 1:-1]
    pixels_HWC[1:-1, 1:-1] = (sums_HWC + 6) // 13
    return Image.fromarray(pixels_HWC)


def jitter(image: Image.Image, *, order: int, strengths: tuple[int, int, int, int]) -> Image.Image:
    """Changes brightness, contrast, saturation and hue; what is left at its neutral strength is not touched.

    Args:
        image: RGB.
        order: index into `JITTER_ORDERS`.
        strengths: of brightness, contrast and saturation the factor in `FACTOR_STEPS`, of hue the shift in `HUE_STEPS`.
    """
    for which in JITTER_ORDERS[order]:
        strength = strengths[which]
        match JITTERS[which]:
            case "brightness" if strength != FACTOR_STEPS:
                image = ImageEnhance.Brightness(image).enhance(strength / FACTOR_STEPS)
            case "contrast" if strength != FACTOR_STEPS:
                image = ImageEnhance.Contrast(image).enhance(strength / FACTOR_STEPS)
            case "saturation" if strength != FACTOR_STEPS:
                image = ImageEnhance.Color(image).enhance(strength / FACTOR_STEPS)
            case "hue" if strength:
                image = _shift_hue(image, strength)
    return image


def _shift_hue(image: Image.Image, shift: int) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    shifted = hue.point([(level + shift) % HUE_STEPS for level in range(HUE_STEPS)])
    return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")


def erase(
    image: Image.Image, rectangle: tuple[int, int, int, int], *, fill: tuple[int, int, int] | None
) -> Image.Image:
    """Paints over a rectangle.

    Args:
        image: RGB.
        rectangle: top, left, height, width in `SIDE_STEPS` of the picture's sides; nothing where it is empty.
        fill: colour; None for the picture's own mean.
    """
    top, left, height, width = rectangle
    box = (
        _edge(left, image.width),
        _edge(top, image.height),
        _edge(left + width, image.width),
        _edge(top + height, image.height),
    )
    if box[0] == box[2] or box[1] == box[3]:
        return image
    if fill is None:
        red, green, blue = (round(mean) for mean in ImageStat.Stat(image).mean)
        fill = (red, green, blue)
    erased = image.copy()
    erased.paste(fill, box)
    return erased


def _edge(place: int, side: int) -> int:
    """`place` of `SIDE_STEPS` as pixels of `side`, halves rounded up."""
    return (2 * place * side + SIDE_STEPS) // (2 * SIDE_STEPS)
