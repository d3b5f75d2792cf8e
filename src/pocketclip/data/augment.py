"""Replayable augmentation: draw parameters once, store them as integers, apply them identically anywhere.

The operations are those of the MobileCLIP reinforcement (arXiv 2508.20691, section 2.1): a random resized crop,
an optional horizontal flip, and RandAugment (Cubuk et al., 2020) with two of fourteen operations. Pixels come from
Pillow alone, whose operations agree to the last bit from release 10.4 on; no library's random state is relied on,
because what was drawn is recorded.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

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
_SIGNED = frozenset(
    [
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
        "rotate",
        "brightness",
        "color",
        "contrast",
        "sharpness",
    ]
)
# Translation reaches this share of the picture's side at the largest magnitude (RandAugment's published search space).
_MAX_TRANSLATION = 150.0 / 331.0
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """What may be drawn. The defaults are the published ones.

    Attributes:
        scale: smallest and largest share of the picture's area that a crop covers, each in (0, 1].
        ratio: smallest and largest width / height of a crop.
        flip: probability of a horizontal flip, in [0, 1].
        num_ops: RandAugment operations a view gets.
        magnitude: RandAugment's strength, a bin in [0, num_bins).
        num_bins: number of strengths.
        interpolation: of the resize that follows the crop.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)
    flip: float = 0.0
    num_ops: int = 2
    magnitude: int = 9
    num_bins: int = 31
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    def __post_init__(self) -> None:
        if not 0.0 < self.scale[0] <= self.scale[1] <= 1.0:
            raise ValueError(f"augmentation scale must satisfy 0 < low <= high <= 1, got {self.scale}")
        if not 0.0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"augmentation ratio must satisfy 0 < low <= high, got {self.ratio}")
        if not 0.0 <= self.flip <= 1.0:
            raise ValueError(f"augmentation flip must be a probability, got {self.flip}")
        if not 0 <= self.magnitude < self.num_bins:
            raise ValueError(f"augmentation magnitude must be in [0, {self.num_bins}), got {self.magnitude}")

    @property
    def num_params(self) -> int:
        """Integers that `pack` makes of one view."""
        return 7 + 2 * self.num_ops


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One drawn view of one picture.

    Attributes:
        width: of the picture that the parameters were drawn for, in pixels.
        height: likewise.
        crop: top, left, height, width in pixels of that picture.
        flip: whether the crop is mirrored.
        operations: pairs (index into OPERATIONS, signed magnitude bin), applied in order.
    """

    width: int
    height: int
    crop: tuple[int, int, int, int]
    flip: bool
    operations: tuple[tuple[int, int], ...]


def seeded(*parts: str | int) -> random.Random:
    """A generator that depends on `parts` alone, the same on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


def draw(rng: random.Random, *, width: int, height: int, spec: AugmentSpec) -> Augmentation:
    """Draws one view of a picture of `width` x `height` pixels."""
    crop = _draw_crop(rng, width=width, height=height, spec=spec)
    flip = rng.random() < spec.flip
    operations = []
    for _ in range(spec.num_ops):
        index = int(rng.random() * len(OPERATIONS))
        negative = rng.random() < 0.5
        sign = -1 if negative and OPERATIONS[index] in _SIGNED else 1
        operations.append((index, sign * spec.magnitude))
    return Augmentation(width=width, height=height, crop=crop, flip=flip, operations=tuple(operations))


def _draw_crop(
    rng: random.Random, *, width: int, height: int, spec: AugmentSpec
) -> tuple[int, int, int, int]:
    """Ten tries at an area and an aspect ratio, then the largest central crop of an allowed ratio."""
    low, high = math.log(spec.ratio[0]), math.log(spec.ratio[1])
    for _ in range(10):
        area = width * height * (spec.scale[0] + (spec.scale[1] - spec.scale[0]) * rng.random())
        ratio = math.exp(low + (high - low) * rng.random())
        crop_w, crop_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_w <= width and 0 < crop_h <= height:
            top = int(rng.random() * (height - crop_h + 1))
            left = int(rng.random() * (width - crop_w + 1))
            return top, left, crop_h, crop_w
    ratio = min(max(width / height, spec.ratio[0]), spec.ratio[1])
    crop_w = min(width, max(1, round(height * ratio)))
    crop_h = min(height, max(1, round(crop_w / ratio)))
    return (height - crop_h) // 2, (width - crop_w) // 2, crop_h, crop_w


def apply(image: Image.Image, view: Augmentation, *, size: int, spec: AugmentSpec) -> Image.Image:
    """Replays `view` on `image`: crop, resize to `size` x `size`, flip, RandAugment.

    Magnitudes are bins, so that a translation is a share of `size`: a student at another resolution than the teacher's
    sees the same content.

    Args:
        image: RGB picture of the size that `view` was drawn for.
        view: parameters from `draw` or `unpack`.
        size: side of the result in pixels.
        spec: bins and interpolation.

    Raises:
        ValueError: `image` is of another size than the one recorded.
    """
    if image.size != (view.width, view.height):
        raise ValueError(
            f"the picture is {image.width}x{image.height} but its augmentation was drawn for "
            f"{view.width}x{view.height}: replaying it would show another crop; use the picture as it was reinforced"
        )
    top, left, crop_h, crop_w = view.crop
    # crop-then-resize, never resize(box=...): the two differ at the crop's border.
    image = image.crop((left, top, left + crop_w, top + crop_h))
    image = image.resize((size, size), _RESAMPLE[spec.interpolation])
    if view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for index, magnitude in view.operations:
        image = _operate(image, OPERATIONS[index], magnitude, num_bins=spec.num_bins)
    return image


def _operate(image: Image.Image, operation: str, magnitude: int, *, num_bins: int) -> Image.Image:
    def strength(largest: float) -> float:
        return math.copysign(_strength(largest, abs(magnitude), num_bins=num_bins), magnitude)

    match operation:
        case "identity":
            return image
        case "shear_x":
            return _affine(image, (1.0, strength(0.3), 0.0, 0.0, 1.0, 0.0))
        case "shear_y":
            return _affine(image, (1.0, 0.0, 0.0, strength(0.3), 1.0, 0.0))
        case "translate_x":
            return _affine(image, (1.0, 0.0, -int(strength(_MAX_TRANSLATION * image.width)), 0.0, 1.0, 0.0))
        case "translate_y":
            return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, -int(strength(_MAX_TRANSLATION * image.height))))
        case "rotate":
            return image.rotate(strength(30.0), resample=Image.Resampling.NEAREST)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(1.0 + strength(0.9))
        case "color":
            return ImageEnhance.Color(image).enhance(1.0 + strength(0.9))
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(1.0 + strength(0.9))
        case "sharpness":
            return ImageEnhance.Sharpness(image).enhance(1.0 + strength(0.9))
        case "posterize":
            return ImageOps.posterize(image, 8 - round(strength(4.0)))
        case "solarize":
            return ImageOps.solarize(image, math.ceil(255.0 - strength(255.0)))
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
    raise AssertionError(operation)


def _strength(largest: float, magnitude: int, *, num_bins: int) -> float:
    """`magnitude` of `num_bins` even steps up to `largest`, rounded to float32 as torchvision's tables are."""
    end = np.float32(largest)
    step = np.float64(end / np.float32(num_bins - 1))
    from_start = magnitude < num_bins / 2
    value = step * magnitude if from_start else np.float64(end) - step * (num_bins - 1 - magnitude)
    return float(np.float32(value))


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.NEAREST)


def pack(view: Augmentation) -> np.ndarray:
    """A view as int32 [7 + 2 * operations]: width, height, top, left, height, width, flip, (operation, bin)..."""
    flat = [value for operation in view.operations for value in operation]
    return np.array([view.width, view.height, *view.crop, int(view.flip), *flat], dtype=np.int32)


def unpack(params_P: np.ndarray) -> Augmentation:
    """The inverse of `pack`.

    Raises:
        ValueError: the numbers describe no view (a crop outside the picture, an unknown operation).
    """
    width, height, top, left, crop_h, crop_w, flip, *flat = (int(value) for value in params_P)
    operations = tuple(zip(flat[::2], flat[1::2], strict=True))
    inside = top >= 0 and left >= 0 and 0 < crop_h <= height - top and 0 < crop_w <= width - left
    known = all(0 <= index < len(OPERATIONS) for index, _ in operations)
    if not inside or not known or flip not in (0, 1):
        raise ValueError(f"damaged augmentation parameters {params_P.tolist()}: reinforce the shard again")
    return Augmentation(
        width=width, height=height, crop=(top, left, crop_h, crop_w), flip=bool(flip), operations=operations
    )
