"""A residual branch: x + stochastic_depth(layer_scale * branch(x))."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pocketclip.models.fold import precise


@runtime_checkable
class Scalable(Protocol):
    """A branch that can take a scale of its output channels into its last linear map."""

    def scale_output(self, scale_C: Tensor) -> None:
        """Multiply the output channels with scale_C (float64 [C]) from now on."""
        ...


class Residual(nn.Module):
    """x + stochastic_depth(scale * branch(x)), for maps [B, C, H, W] or tokens [B, L, C].

    Layer scale is a learned factor a channel (CaiT, arXiv 2103.17239); stochastic depth drops the branch of a
    picture with probability `drop_path` while training and scales the kept ones up (arXiv 1603.09382).
    """

    def __init__(
        self,
        branch: nn.Module,
        *,
        channels: int,
        layer_scale_init: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.drop_path = drop_path
        init_C = None if layer_scale_init is None else torch.full((channels,), float(layer_scale_init))
        self.scale = None if init_C is None else nn.Parameter(init_C)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [B, L, C], the same out."""
        out = self.branch(x)
        if self.scale is not None:
            out = out * (self.scale[:, None, None] if x.ndim == 4 else self.scale)
        return x + stochastic_depth(out, rate=self.drop_path, training=self.training)

    def fold_in_place(self) -> nn.Module:
        """Layer scale moves into the branch's last linear map where the branch can take it."""
        if self.scale is not None and isinstance(self.branch, Scalable):
            self.branch.scale_output(precise(self.scale))
            self.scale = None
        return self


def stochastic_depth(x: Tensor, *, rate: float, training: bool) -> Tensor:
    """Zero whole samples of x [B, ...] with probability `rate`, the others divided by 1 - rate."""
    if not training or rate == 0.0:
        return x
    keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1.0 - rate)
    return x * keep / (1.0 - rate)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates that rise linearly from 0 in the first block to `rate` in the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
