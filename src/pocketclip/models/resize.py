"""Position embeddings for another number of places: patches of a larger picture, tokens of a longer text.

Shape suffixes: L places, C channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize_hybrid_positions(position_LC: Tensor, length: int) -> Tensor:
    """Positions [L, C] of the hybrid text tower for `length` tokens: linear, never antialiased, as published."""
    if position_LC.shape[0] == length:
        return position_LC
    position_1CL = position_LC.T.unsqueeze(0)
    return F.interpolate(position_1CL, size=length, mode="linear", align_corners=False)[0].T
