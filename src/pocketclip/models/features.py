"""What an image tower sees before it is pooled: a map of each stage, for detection, segmentation, depth.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class FeatureMap(NamedTuple):
    """One stage's output.

    Attributes:
        map_BCHW: [B, C, H, W], H and W the picture's sides over `stride`, rounded up.
        stride: pixels of the picture from one place of the map to the next.
    """

    map_BCHW: Tensor
    stride: int

    @property
    def channels(self) -> int:
        """Channels of a place."""
        return self.map_BCHW.shape[1]


class FeaturePyramid(NamedTuple):
    """All stages' maps, finest first: strides 4, 8, 16, 32 (and 64) of a FastViT, the one stride of a ViT.

    Attributes:
        maps: one a stage.
        class_BC: the class token's output [B, C] of a ViT that has one, for its embedding.
    """

    maps: tuple[FeatureMap, ...]
    class_BC: Tensor | None = None
