"""The way out of a tower: projection and unit norm, always in float32.

The published S0 has un-normalised features with norms near 1e6, which float16 cannot hold. So the last linear
map and the normalisation are computed, and returned, in float32 whatever the model's dtype or autocast.

Shape suffixes: B batch, C channels of the tower, D embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projection(nn.Linear):
    """A linear layer [B, C] -> float32 [B, D] that computes in float32 under autocast and in half models."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.Linear has
        """[B, C] of any floating dtype -> float32 [B, D]."""
        device = input.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._project(input)
        return self._project(input)

    def _project(self, input_BC: Tensor) -> Tensor:
        bias_D = None if self.bias is None else self.bias.float()
        return F.linear(input_BC.float(), self.weight.float(), bias_D)


def unit_norm(embed_BD: Tensor) -> Tensor:
    """Rows scaled to Euclidean length 1, in float32; a zero row stays zero."""
    return F.normalize(embed_BD.float(), dim=-1)
