"""The inference transform as data: it is stored with the weights and runs without torch.

Shapes: B batch, C 3 channels, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketclip.data.picture import to_rgb
from pocketclip.data.sample import JsonValue

Interpolation = Literal["bilinear", "bicubic"]
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# A strip (60000 x 1) that would be resized to more pixels than this is resized only where the crop keeps it. That is
# affordable; PIL may round between its two passes in another order then, which shows in the last bits.
_MAX_RESIZED_PIXELS = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Turn upright, make RGB, resize the shortest side to `size`, crop the centre square, scale to [0, 1], normalise.

    From the upright RGB picture on (`picture.to_rgb`), pixels equal those of torchvision's Resize, CenterCrop, ToTensor
    and Normalize on a PIL picture, to the last bit; only of strips that would be resized to more than 16 million pixels
    some differ by a few levels.

    Attributes:
        size: side of the square given to the model, pixels.
        mean: what is subtracted from each channel, R, G, B in [0, 1].
        std: what each channel is divided by afterwards.
        interpolation: "bilinear" or "bicubic", both antialiased (PIL).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1:
            raise ValueError(f"preprocess.size is {self.size!r}: it must be a number of pixels, at least 1")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(
                    f"preprocess.{name} is {values!r}: it must be three finite numbers (R, G, B)"
                )
        if min(self.std) <= 0:
            raise ValueError(f"preprocess.std is {self.std!r}: every channel's must be above 0")
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(
                f"preprocess.interpolation is {self.interpolation!r}: it must be one of "
                f"{', '.join(get_args(Interpolation))}"
            )

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resize and crop one picture: uint8 [size, size, 3].

        Any PIL mode is taken. The picture is made upright RGB first, as the decoder does it: EXIF orientation is
        applied where the picture still has it, transparency is laid on white.

        Raises:
            PictureError: floating-point pixels.
            OSError: PIL cannot load the picture.
        """
        return np.array(self._square(to_rgb(image, name="picture")), dtype=np.uint8)

    def _square(self, image: Image.Image) -> Image.Image:
        short, long = sorted(image.size)
        scaled_long = int(self.size * long / short)
        # torchvision rounds half to even, on the float
        offset = round((scaled_long - self.size) / 2.0)
        wide = image.width >= image.height
        left, top = (offset, 0) if wide else (0, offset)
        resampling = _RESAMPLING[self.interpolation]
        if scaled_long * self.size > _MAX_RESIZED_PIXELS:
            begin, end = (edge * long / scaled_long for edge in (offset, offset + self.size))
            box = (begin, 0, end, short) if wide else (0, begin, short, end)
            return image.resize((self.size, self.size), resampling, box=box)
        scaled = (scaled_long, self.size) if wide else (self.size, scaled_long)
        if scaled != image.size:
            image = image.resize(scaled, resampling)
        return image.crop((left, top, left + self.size, top + self.size))

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """One picture as the model wants it: float32 [3, size, size]; see `pixels` and `normalise`."""
        return self.normalise(self.pixels(image)[None])[0]

    def normalise(self, pixels_BHWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(x / 255 - mean) / std: uint8 BHWC to float32 BCHW."""
        assert pixels_BHWC.dtype == np.uint8, pixels_BHWC.dtype
        assert pixels_BHWC.ndim == 4, pixels_BHWC.shape
        mean_C11, std_C11 = (np.array(row, dtype=np.float32)[:, None, None] for row in (self.mean, self.std))
        scaled_BCHW = np.ascontiguousarray(pixels_BHWC.transpose(0, 3, 1, 2)).astype(np.float32)
        scaled_BCHW /= np.float32(255)
        scaled_BCHW -= mean_C11
        scaled_BCHW /= std_C11
        return scaled_BCHW

    def to_json(self) -> dict[str, JsonValue]:
        """Plain JSON values of every field."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Preprocess:
        """The record that `to_json` wrote.

        Raises:
            ValueError: a field is missing, unknown, or of the wrong kind; the sentence names it.
        """
        known = {field.name for field in fields(cls)}
        for problem, names in (("unknown", set(values) - known), ("missing", known - set(values))):
            if names:
                raise ValueError(f"preprocess has {problem} fields: {', '.join(sorted(names))}")
        size, interpolation = values["size"], values["interpolation"]
        if type(size) is not int or not isinstance(interpolation, str):
            raise ValueError(f"preprocess.size must be an integer and interpolation a text: {dict(values)}")
        return cls(
            size=size,
            mean=_three_numbers("mean", values["mean"]),
            std=_three_numbers("std", values["std"]),
            interpolation=interpolation,  # ty: ignore[invalid-argument-type]  # checked in __post_init__
        )


def _three_numbers(name: str, values: object) -> tuple[float, float, float]:
    numbers = (
        [float(v) for v in values if type(v) in (int, float)] if isinstance(values, list | tuple) else []
    )
    if not isinstance(values, list | tuple) or len(values) != 3 or len(numbers) != 3:
        raise ValueError(f"preprocess.{name} is {values!r}: it must be a list of three numbers (R, G, B)")
    return numbers[0], numbers[1], numbers[2]
