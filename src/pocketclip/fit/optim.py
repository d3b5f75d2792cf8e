"""AdamW with weight decay on matrices alone, and the exponential moving average of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW's settings (arXiv 2508.20691, Table 16: beta2 0.95, weight decay 0.2).

    Attributes:
        lr_peak: learning rate after warm-up.
        lr_floor: learning rate at the end.
        warmup_steps: of linear warm-up.
        weight_decay: on weights of two or more dimensions.
        betas: decay of the first and second moments.
        clip_norm: largest norm of the whole gradient.
    """

    lr_peak: float = 1e-3
    lr_floor: float = 1e-6
    warmup_steps: int = 100
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0


def make_adamw(model: nn.Module, *, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over `model`; norms, biases, scales and other vectors are not decayed."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr_peak, betas=config.betas, fused=True)


class WeightAverage:
    """Exponential moving average of a model's parameters and floating-point buffers; counters are copied.

    Args:
        model: to follow.
        decay: share of the average that stays at each update, in [0, 1).
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the moving average's decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.tensors: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards `model`."""
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value, 1.0 - self.decay)
            else:
                self.tensors[name].copy_(value)
