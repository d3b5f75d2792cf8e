"""Position embeddings for another number of places: patches of a larger picture, tokens of a longer text.

Interpolated as timm (pictures) and open_clip (texts) do when they load weights into a model of another size. The
same number of places is the same tensor.

Shape suffixes: B batch, C channels, H height, W width, L places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_image_positions(position_LC: Tensor, *, old_side: int, side: int) -> Tensor:
    """Positions of a square grid of patches for a larger or smaller one: bicubic, antialiased.

    Args:
        position_LC: [L, C], the grid's old_side * old_side places row by row at the end; what is before them (the
            class token's) stays as it is.
        old_side: patches along a side until now.
        side: patches along a side from now on.

    Returns:
        [L - old_side * old_side + side * side, C], in the dtype given.
    """
    if side == old_side:
        return position_LC
    num_before = position_LC.shape[0] - old_side * old_side
    assert num_before >= 0
    before_LC, grid_LC = position_LC[:num_before], position_LC[num_before:]
    grid_BCHW = _precise(grid_LC).T.unflatten(1, (old_side, old_side)).unsqueeze(0)
    resized_BCHW = F.interpolate(
        grid_BCHW, size=(side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([before_LC, resized_BCHW[0].flatten(1).T.to(position_LC.dtype)])


def resize_text_positions(position_LC: Tensor, length: int) -> Tensor:
    """Positions [L, C] of a text for `length` tokens, [length, C] in the dtype given: linear, not antialiased."""
    if position_LC.shape[0] == length:
        return position_LC
    position_BCL = _precise(position_LC).T.unsqueeze(0)
    resized_BCL = F.interpolate(position_BCL, size=length, mode="linear", align_corners=False)
    return resized_BCL[0].T.to(position_LC.dtype)


def _precise(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
