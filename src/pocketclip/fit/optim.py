"""AdamW with weight decay on matrices alone, and the exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketclip.fit.ranks import like, whole


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

    def __post_init__(self) -> None:
        if not 0.0 <= self.lr_floor <= self.lr_peak:
            raise ValueError(f"lr_floor must be in [0, lr_peak], got {self.lr_floor} and {self.lr_peak}")
        if self.warmup_steps < 0 or self.weight_decay < 0.0:
            raise ValueError("warmup_steps and weight_decay must not be negative")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        if not self.clip_norm > 0.0:
            raise ValueError(f"clip_norm must be above 0, got {self.clip_norm}; inf does not clip")


def make_adamw(model: nn.Module, *, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over `model`; norms, biases, scales and other vectors are not decayed."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learnt if p.ndim == 1], "weight_decay": 0.0},
        {"params": [p for p in learnt if p.ndim == 0], "weight_decay": 0.0},  # fsdp2 shards them not
    ]
    groups = [group for group in groups if group["params"]]
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

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over a saved average: by name, tensors [D0, D1, ...] as in the model, whole, on any device."""
        for name, value in self.tensors.items():
            value.copy_(like(tensors[name], value))


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Moments by the name of their parameter, each whole; all processes call it."""
    return {
        name: {moment: whole(value) for moment, value in optimizer.state[parameter].items()}
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }


@torch.no_grad()
def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Takes over saved moments, each laid out as its parameter is.

    The fused step walks the memory of parameter and moments side by side: moments that are laid out otherwise
    (contiguous, where the parameter is channels-last) would be paired with the wrong weights without an error.
    """
    for name, parameter in model.named_parameters():
        if name in saved:
            optimizer.state[parameter] = {
                moment: like(value, parameter.detach()) for moment, value in saved[name].items()
            }
