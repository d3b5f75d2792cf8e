"""What augmentations may be drawn: plain data, stored with what was drawn from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import get_args

from pocketclip.data.operations import Interpolation, ResizeOrder
from pocketclip.data.sample import JsonValue

# The largest value of probabilities and jitters.
_LARGEST = {
    "flip": 1.0,
    "rand_augment": 1.0,
    "jitter": 1.0,
    "erase": 1.0,
    "brightness": 10.0,
    "contrast": 10.0,
    "saturation": 10.0,
    "hue": 0.5,
}


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """What may be drawn. The defaults are the published ones.

    Attributes:
        scale: smallest and largest share of the picture's area that a crop covers, each in (0, 1].
        ratio: smallest and largest width / height of a crop.
        flip: probability of a horizontal flip, in [0, 1].
        rand_augment: probability of RandAugment, in [0, 1].
        num_ops: RandAugment operations a view gets.
        magnitude: RandAugment's strength, a bin in [0, num_bins).
        num_bins: number of strengths, at least 2.
        interpolation: of the resize that follows the crop.
        resize_order: whether rows or columns are resized first: as Pillow 13 does it, or as Pillow 12 and older did,
            with which the published data sets were made. An eighth of the crops differ, by 0.15 levels on average.
        translate_px: the side whose pixels a translation counts, at whatever side a view is replayed: 224 is the
            published replay. None: a translation is a share of the side, and every side shows the same content.
        jitter: probability of colour jitter, in [0, 1].
        brightness: jitter's factors of brightness are drawn from [1 - brightness, 1 + brightness], not below 0.
        contrast: likewise.
        saturation: likewise.
        hue: jitter's shifts of hue are drawn from [-hue, hue], in turns, at most 0.5.
        erase: probability of random erasing, in [0, 1].
        erase_scale: smallest and largest share of the view's area that is erased.
        erase_ratio: smallest and largest height / width of what is erased.
        erase_fill: its colour; None for the mean of the view.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)
    flip: float = 0.0
    rand_augment: float = 1.0
    num_ops: int = 2
    magnitude: int = 9
    num_bins: int = 31
    interpolation: Interpolation = "bicubic"
    resize_order: ResizeOrder = "pillow_13"
    translate_px: int | None = None
    jitter: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    erase: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 1.0 / 3.0)
    erase_ratio: tuple[float, float] = (0.3, 3.3)
    erase_fill: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "erase_scale"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high <= 1.0:
                raise ValueError(
                    f"augmentation {name} must satisfy 0 < low <= high <= 1, got {getattr(self, name)}"
                )
        for name in ("ratio", "erase_ratio"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high < math.inf:
                raise ValueError(
                    f"augmentation {name} must satisfy 0 < low <= high, got {getattr(self, name)}"
                )
        for name, largest in _LARGEST.items():
            if not 0.0 <= getattr(self, name) <= largest:
                raise ValueError(
                    f"augmentation {name} must be in [0, {largest:g}], got {getattr(self, name)}"
                )
        if self.num_ops < 0:
            raise ValueError(f"augmentation num_ops must be at least 0, got {self.num_ops}")
        if self.num_bins < 2:
            raise ValueError(f"augmentation num_bins must be at least 2, got {self.num_bins}")
        if not 0 <= self.magnitude < self.num_bins:
            raise ValueError(f"augmentation magnitude must be in [0, {self.num_bins}), got {self.magnitude}")
        for name, choices in (("interpolation", Interpolation), ("resize_order", ResizeOrder)):
            if getattr(self, name) not in get_args(choices):
                options = " or ".join(get_args(choices))
                raise ValueError(f"augmentation {name} must be {options}, got {getattr(self, name)!r}")
        if self.translate_px is not None and (type(self.translate_px) is not int or self.translate_px < 1):
            raise ValueError(f"augmentation translate_px must be an integer above 0, got {self.translate_px}")
        fill = self.erase_fill
        if fill is not None and (type(fill) is not tuple or not all(0 <= level <= 255 for level in fill)):
            raise ValueError(f"augmentation erase_fill must be a colour of 0 to 255, got {fill}")

    @property
    def num_params(self) -> int:
        """Integers that `pack` makes of one view."""
        return 7 + 2 * self.num_ops + (5 if self.jitter else 0) + (4 if self.erase else 0)

    def to_json(self) -> dict[str, JsonValue]:
        """Plain JSON values of every field."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, JsonValue]) -> AugmentSpec:
        """The record that `to_json` wrote.

        Raises:
            ValueError: a field is unknown, missing or of the wrong kind; the sentence names it.
        """
        known = {field.name for field in fields(cls)}
        for problem, names in (("unknown", set(values) - known), ("missing", known - set(values))):
            if names:
                raise ValueError(f"the augmentation has {problem} fields: {', '.join(sorted(names))}")
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        for field in fields(cls):
            if not _is_like(given[field.name], field.default):
                raise ValueError(
                    f"the augmentation's {field.name} is of the wrong kind: {values[field.name]!r}"
                )
        return cls(**given)  # ty: ignore[invalid-argument-type]  # compared with the defaults' kinds


def _is_like(value: object, default: object) -> bool:
    """Whether a value is of a default's kind; where the default is None, an integer and a colour are too."""
    if default is None:
        return value is None or _is_like(value, 0) or _is_like(value, (0, 0, 0))
    if isinstance(default, tuple):
        kinds = (int,) if all(type(part) is int for part in default) else (int, float)
        return (
            isinstance(value, tuple)
            and len(value) == len(default)
            and all(type(part) in kinds for part in value)
        )
    return type(value) in (int, float) if isinstance(default, float) else type(value) is type(default)
