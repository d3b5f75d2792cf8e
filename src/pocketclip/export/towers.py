"""The two networks that are exported: folded, unit norm in the graph, pixels normalised in it if asked.

Shapes: B batch, C 3 channels, H and W picture, L tokens, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pocketclip.checkpoint import Loaded
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.models import fold
from pocketclip.models.projection import unit_norm

EXAMPLE_BATCH = 2  # an example batch of 1 would be traced as a constant
INPUT_NAMES = {"image": "pixels", "text": "tokens"}
OUTPUT_NAME = "unit_embed"


class CannotRunError(RuntimeError):
    """Nothing on this machine runs what was written; its numbers are not known."""


class UnitNormTower(nn.Module):
    """A tower followed by the scaling of its embeddings to length 1, in float32."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, x: Tensor) -> Tensor:
        """What the tower takes, [B, ...] -> float32 [B, D], rows of length 1."""
        return unit_norm(self.tower(x).float())


class PixelTower(nn.Module):
    """An image tower that takes 8-bit pixels and normalises them itself, as `Preprocess.normalise` does."""

    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.tower = tower
        for name in ("mean", "std"):
            self.register_buffer(
                name, torch.tensor(getattr(preprocess, name)).view(3, 1, 1), persistent=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> what the tower gives."""
        return self.tower(self.normalise(x))

    def normalise(self, x: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> float32 [B, 3, H, W]."""
        scaled_BCHW = x.permute(0, 3, 1, 2).float() / 255
        return (scaled_BCHW - self.mean) / self.std


@dataclass(frozen=True, kw_only=True)
class TowerRequest:
    """One tower to be written.

    Attributes:
        role: "image" or "text".
        tower: folded, in eval mode, with its unit norm.
        example: an input [2, ...].
        plain: gives it as float32 ONNX, which is traced once and not to be changed.
        save: writes the whole checkpoint into a file, for those that trace it elsewhere.
        pixels: what an image tower takes, "float32" or "uint8".
        folder: where its files go.
        precision: of weights and arithmetic.
        opset: ONNX operator set.
        calibration: inputs [N, ...] as the tower takes them; empty where the precision needs none.
        held_back: modules or layers that int8 leaves in float32.
        has_small_table: whether a text tower's token table goes into 4 bits.
    """

    role: str
    tower: nn.Module
    example: Tensor
    plain: Callable[[], Path]
    save: Callable[[Path], object]
    pixels: str
    folder: Path
    precision: Precision
    opset: int
    calibration: npt.NDArray[np.generic]
    held_back: tuple[str, ...] = ()
    has_small_table: bool = False


@dataclass(frozen=True, kw_only=True)
class WrittenTower:
    """What a target wrote.

    Attributes:
        files: role -> file name in the folder.
        settings: how, as the manifest has it.
    """

    files: dict[str, str]
    settings: dict[str, JsonValue] = field(default_factory=dict)


def is_delicate(name: str, module: nn.Module) -> bool:
    """Whether int8 hurts a layer much for little time: depthwise convolutions, the stem, the head, gates.

    Args:
        name: of the layer in its tower.
        module: the layer.
    """
    is_depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
    return is_depthwise or any(part in ("stem", "head", "squeeze") for part in name.split("."))


def build_tower(
    loaded: Loaded, role: str, *, pixels: Literal["float32", "uint8"] = "float32"
) -> tuple[nn.Module, Tensor]:
    """A tower as it is exported, and an example of its input.

    Args:
        loaded: a checkpoint.
        role: "image" or "text".
        pixels: what the image tower takes.
    """
    folded = fold(loaded.model)
    if role == "text":
        return UnitNormTower(folded.text).eval(), loaded.tokenize(["a cat", "dogs"])
    size = loaded.config.preprocess.size
    tower: nn.Module = UnitNormTower(folded.image)
    if pixels == "float32":
        return tower.eval(), torch.zeros(EXAMPLE_BATCH, 3, size, size)
    example = torch.zeros(EXAMPLE_BATCH, size, size, 3, dtype=torch.uint8)
    return PixelTower(tower, loaded.config.preprocess).eval(), example
