"""Replayable augmentation: draw parameters once, store them as integers, apply them identically anywhere.

The operations are those of the MobileCLIP reinforcement (arXiv 2508.20691, section 2.1): a random resized crop and
RandAugment (Cubuk et al., 2020) with two of fourteen operations; then, where a spec asks for them, a flip, colour
jitter and random erasing (Zhong et al., 2020). Pixels come from Pillow alone; no library's random state is relied on,
because what was drawn is recorded.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.operations import (
    FACTOR_STEPS,
    HUE_STEPS,
    JITTER_ORDERS,
    OPERATIONS,
    SIDE_STEPS,
    erase,
    is_signed,
    jitter,
    magnitude,
    operate,
    resize,
)

_TRIES = 10  # at a rectangle that fits

# Bits of a packed view's seventh integer.
_FLIPPED, _HAS_JITTER, _HAS_ERASURE = 1, 2, 4


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """One drawn change of colours.

    Attributes:
        order: of the four changes, index into `operations.JITTER_ORDERS`.
        brightness: factor in thousandths; 1000 changes nothing.
        contrast: likewise.
        saturation: likewise.
        hue: shift in 1/256 of a turn; 0 changes nothing.
    """

    order: int = 0
    brightness: int = FACTOR_STEPS
    contrast: int = FACTOR_STEPS
    saturation: int = FACTOR_STEPS
    hue: int = 0

    @property
    def strengths(self) -> tuple[int, int, int, int]:
        """Brightness, contrast, saturation, hue."""
        return self.brightness, self.contrast, self.saturation, self.hue


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One drawn view of one picture.

    Attributes:
        width: of the picture that the parameters were drawn for, in pixels.
        height: likewise.
        crop: top, left, height, width in pixels of that picture.
        flip: whether the crop is mirrored.
        operations: pairs (index into OPERATIONS, signed magnitude bin), applied in order; identities where RandAugment
            was skipped.
        jitter: change of colours; None where the spec has no jitter.
        erasure: top, left, height, width of the erased rectangle in 1/1024 of the view's side, of no size where nothing
            was erased; None where the spec has no erasing.

    Raises:
        ValueError: this is no view: a crop outside the picture, an unknown operation, a number out of range.
    """

    width: int
    height: int
    crop: tuple[int, int, int, int]
    flip: bool
    operations: tuple[tuple[int, int], ...]
    jitter: Jitter | None = None
    erasure: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        top, left, crop_h, crop_w = self.crop
        if not (min(top, left) >= 0 and 0 < crop_h <= self.height - top and 0 < crop_w <= self.width - left):
            raise ValueError(
                f"crop {self.crop} (top, left, height, width) is outside the picture of "
                f"{self.width}x{self.height}"
            )
        for number, strength in self.operations:
            if not 0 <= number < len(OPERATIONS):
                raise ValueError(f"operation {number} is unknown: they are 0 to {len(OPERATIONS) - 1}")
            if strength < 0 and not is_signed(number):
                raise ValueError(f"operation {OPERATIONS[number]} has no sign, got {strength}")
        if self.jitter is not None:
            factors = self.jitter.strengths[:3]
            within = 0 <= self.jitter.order < len(JITTER_ORDERS) and abs(self.jitter.hue) <= HUE_STEPS // 2
            if not within or not all(0 <= factor <= 11 * FACTOR_STEPS for factor in factors):
                raise ValueError(f"{self.jitter} is out of range")
        if self.erasure is not None:
            top, left, height, width = self.erasure
            if min(self.erasure) < 0 or top + height > SIDE_STEPS or left + width > SIDE_STEPS:
                raise ValueError(f"erasure {self.erasure} is outside the view of {SIDE_STEPS}x{SIDE_STEPS}")


def seeded(*parts: str | int) -> random.Random:
    """A generator that depends on `parts` alone, the same on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


def draw(rng: random.Random, *, width: int, height: int, spec: AugmentSpec) -> Augmentation:
    """Draws one view of a picture of `width` x `height` pixels."""
    return Augmentation(
        width=width,
        height=height,
        crop=_draw_crop(rng, width=width, height=height, spec=spec),
        flip=rng.random() < spec.flip,
        operations=_draw_operations(rng, spec=spec),
        jitter=_draw_jitter(rng, spec=spec) if spec.jitter else None,
        erasure=_draw_erasure(rng, spec=spec) if spec.erase else None,
    )


def _draw_crop(
    rng: random.Random, *, width: int, height: int, spec: AugmentSpec
) -> tuple[int, int, int, int]:
    """Ten tries at an area and an aspect ratio, then the largest central crop of an allowed ratio."""
    low, high = math.log(spec.ratio[0]), math.log(spec.ratio[1])
    for _ in range(_TRIES):
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


def _draw_operations(rng: random.Random, *, spec: AugmentSpec) -> tuple[tuple[int, int], ...]:
    # A certain operation draws nothing for its chance: what older specs drew from a seed stays drawn.
    if spec.rand_augment < 1.0 and rng.random() >= spec.rand_augment:
        return ((0, 0),) * spec.num_ops
    operations = []
    for _ in range(spec.num_ops):
        number = int(rng.random() * len(OPERATIONS))
        negative = rng.random() < 0.5
        operations.append((number, -spec.magnitude if negative and is_signed(number) else spec.magnitude))
    return tuple(operations)


def _draw_jitter(rng: random.Random, *, spec: AugmentSpec) -> Jitter:
    if rng.random() >= spec.jitter:
        return Jitter()

    def factor(reach: float) -> int:
        low, high = math.ceil(max(0.0, 1.0 - reach) * FACTOR_STEPS), math.floor((1.0 + reach) * FACTOR_STEPS)
        return low + int(rng.random() * (high - low + 1))

    reach = math.floor(spec.hue * HUE_STEPS)
    return Jitter(
        order=int(rng.random() * len(JITTER_ORDERS)),
        brightness=factor(spec.brightness),
        contrast=factor(spec.contrast),
        saturation=factor(spec.saturation),
        hue=int(rng.random() * (2 * reach + 1)) - reach,
    )


def _draw_erasure(rng: random.Random, *, spec: AugmentSpec) -> tuple[int, int, int, int]:
    if rng.random() >= spec.erase:
        return 0, 0, 0, 0
    low, high = math.log(spec.erase_ratio[0]), math.log(spec.erase_ratio[1])
    for _ in range(_TRIES):
        area = spec.erase_scale[0] + (spec.erase_scale[1] - spec.erase_scale[0]) * rng.random()
        ratio = math.exp(low + (high - low) * rng.random())
        height, width = (round(SIDE_STEPS * math.sqrt(share)) for share in (area * ratio, area / ratio))
        if 0 < height < SIDE_STEPS and 0 < width < SIDE_STEPS:
            top = int(rng.random() * (SIDE_STEPS - height + 1))
            left = int(rng.random() * (SIDE_STEPS - width + 1))
            return top, left, height, width
    return 0, 0, 0, 0


def check_view(view: Augmentation, *, spec: AugmentSpec) -> None:
    """Makes sure that `view` is of the kind that `spec` draws.

    Raises:
        ValueError: it is not; the sentence says what is out of range.
    """
    wrong = []
    if len(view.operations) != spec.num_ops:
        wrong.append(f"{len(view.operations)} operations")
    wrong += [f"bin {bin_}" for _, bin_ in view.operations if abs(bin_) >= spec.num_bins]
    if (view.jitter is not None) != (spec.jitter > 0):
        wrong.append("jitter" if view.jitter is not None else "no jitter")
    if (view.erasure is not None) != (spec.erase > 0):
        wrong.append("an erasure" if view.erasure is not None else "no erasure")
    if wrong:
        raise ValueError(
            f"a view with {', '.join(wrong)} does not belong to an augmentation of {spec.num_ops} operations, "
            f"{spec.num_bins} bins, jitter {spec.jitter:g} and erase {spec.erase:g}: reinforce the shard again"
        )


def apply(image: Image.Image, view: Augmentation, *, size: int, spec: AugmentSpec) -> Image.Image:
    """Replays `view` on `image`: crop, resize to `size` x `size`, flip, jitter, RandAugment, erase.

    Magnitudes are bins, so that a translation is a share of `size` (unless the spec has `translate_px`): a student at
    another resolution than the teacher's sees the same content.

    Args:
        image: RGB picture of the size that `view` was drawn for.
        view: parameters from `draw` or `unpack`.
        size: side of the result in pixels.
        spec: what it was drawn from.

    Raises:
        ValueError: `image` is of another size than the one recorded, or `view` is not of `spec`.
    """
    check_size(view, image.size)
    top, left, crop_h, crop_w = view.crop
    # crop-then-resize, never resize(box=...): the two differ at the crop's border.
    crop = image.crop((left, top, left + crop_w, top + crop_h))
    return apply_to_crop(crop, view, size=size, spec=spec)


def check_size(view: Augmentation, size: tuple[int, int]) -> None:
    """Makes sure that `view` was drawn for a picture of this width and height.

    Raises:
        ValueError: it was not.
    """
    if size != (view.width, view.height):
        raise ValueError(
            f"the picture is {size[0]}x{size[1]} but its augmentation was drawn for "
            f"{view.width}x{view.height}: replaying it would show another crop; use the picture as it was reinforced"
        )


def apply_to_crop(
    crop: Image.Image,
    view: Augmentation,
    *,
    size: int,
    spec: AugmentSpec,
    box: tuple[float, float, float, float] | None = None,
    quick: bool = False,
) -> Image.Image:
    """Replays `view` on its own crop: what `apply` does from there on.

    Args:
        crop: RGB.
        view: parameters from `draw` or `unpack`.
        size: side of the result in pixels.
        spec: what it was drawn from.
        box: left, top, right, bottom of the crop in `crop`, where that is a picture scaled down; None for all of it.
        quick: shrink by a filter that is twice as fast as the bicubic one, and another.

    Raises:
        ValueError: `view` is not of `spec`.
    """
    check_view(view, spec=spec)
    image = resize(
        crop, size, interpolation=spec.interpolation, order=spec.resize_order, box=box, quick=quick
    )
    if view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if view.jitter is not None:
        image = jitter(image, order=view.jitter.order, strengths=view.jitter.strengths)
    for number, strength in view.operations:
        image = operate(image, number, strength, num_bins=spec.num_bins, side=spec.translate_px or size)
    if view.erasure is not None:
        image = erase(image, view.erasure, fill=spec.erase_fill)
    return image


def magnitudes(view: Augmentation, *, spec: AugmentSpec, side: int) -> tuple[tuple[int, float], ...]:
    """The operations of a view with magnitudes as torchvision has them, for formats that store those.

    Args:
        view: of `spec`.
        spec: its bins.
        side: whose pixels a translation counts.

    Returns:
        Pairs (index into OPERATIONS, signed magnitude): see `operations.magnitude`.
    """
    return tuple(
        (number, magnitude(number, strength, num_bins=spec.num_bins, side=side))
        for number, strength in view.operations
    )


def from_magnitudes(
    operations: Sequence[tuple[int, float]] | None, *, spec: AugmentSpec, side: int
) -> tuple[tuple[int, int], ...]:
    """The inverse of `magnitudes`: the operations of a view out of a format that stores magnitudes.

    Args:
        operations: pairs (index into OPERATIONS, signed magnitude), or None where RandAugment was skipped.
        spec: its bins.
        side: whose pixels a translation counts.

    Returns:
        As many operations as `spec` has, whose magnitudes are the given ones.

    Raises:
        ValueError: another number of operations, an unknown one, or a magnitude that none of the bins has.
    """
    if operations is None:
        return ((0, 0),) * spec.num_ops
    if len(operations) != spec.num_ops:
        raise ValueError(f"{len(operations)} operations where the augmentation has {spec.num_ops}")
    return tuple(_bin(number, value, spec=spec, side=side) for number, value in operations)


def _bin(number: int, value: float, *, spec: AugmentSpec, side: int) -> tuple[int, int]:
    if not 0 <= number < len(OPERATIONS):
        raise ValueError(f"operation {number} is unknown: they are 0 to {len(OPERATIONS) - 1}")
    sign = -1 if is_signed(number) and value < 0 else 1
    # The spec's own bin first: some operations do the same in several bins.
    for strength in (spec.magnitude, *range(spec.num_bins)):
        expected = magnitude(number, sign * strength, num_bins=spec.num_bins, side=side)
        # Numbers that were shortened in printing still count; neighbouring bins are at least 0.3 / num_bins apart.
        if math.isclose(value, expected, rel_tol=1e-5, abs_tol=1e-6):
            return number, sign * strength
    raise ValueError(
        f"operation {OPERATIONS[number]} has magnitude {value}, which is none of {spec.num_bins} bins at side {side}"
    )


def pack(view: Augmentation) -> np.ndarray:
    """A view as int32 [P].

    Width, height, top, left, height, width, flags (1 flipped, 2 jitter follows, 4 an erasure follows), (operation,
    bin)..., then the five integers of the jitter and the four of the erasure where the spec has them.
    """
    flags = _FLIPPED * view.flip + _HAS_JITTER * (view.jitter is not None)
    flags += _HAS_ERASURE * (view.erasure is not None)
    flat = [value for operation in view.operations for value in operation]
    if view.jitter is not None:
        flat += [view.jitter.order, *view.jitter.strengths]
    flat += view.erasure or ()
    return np.array([view.width, view.height, *view.crop, flags, *flat], dtype=np.int32)


def unpack(params_P: np.ndarray) -> Augmentation:
    """The inverse of `pack`.

    Raises:
        ValueError: the numbers describe no view (a crop outside the picture, an unknown operation).
    """
    try:
        return _unpack([int(value) for value in params_P])
    except ValueError as error:
        raise ValueError(
            f"damaged augmentation parameters {params_P.tolist()} ({error}): reinforce the shard again"
        ) from None


def _unpack(values: list[int]) -> Augmentation:
    width, height, top, left, crop_h, crop_w, flags, *rest = values
    if not 0 <= flags < 8:
        raise ValueError(f"flags {flags}")
    erasure = jittered = None
    if flags & _HAS_ERASURE:
        *rest, first, second, third, fourth = rest
        erasure = (first, second, third, fourth)
    if flags & _HAS_JITTER:
        *rest, order, brightness, contrast, saturation, hue = rest
        jittered = Jitter(
            order=order, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )
    return Augmentation(
        width=width,
        height=height,
        crop=(top, left, crop_h, crop_w),
        flip=bool(flags & _FLIPPED),
        operations=tuple(zip(rest[::2], rest[1::2], strict=True)),
        jitter=jittered,
        erasure=erasure,
    )
