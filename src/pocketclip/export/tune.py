"""Weights that bear rounding: a folded tower learns from itself, with int8 in its forward pass.

Quantisation-aware fine-tuning (Jacob et al., arXiv 1712.05877, section 3) with the tower's own float32 embeddings as
the target, so that it needs pictures and texts and no labels. What is tuned is written in float32 and quantised like
any other.

Shapes: N inputs, B batch, D embedding.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from tqdm import tqdm

from pocketclip.export.towers import is_delicate

BATCH = 16
LR = 2e-5
_LEVELS = 127  # int8, symmetric
_PACE = 0.05  # of the running range of activations


def tune(tower: nn.Module, inputs: npt.NDArray[np.generic], *, steps: int, seed: int) -> nn.Module:
    """A copy of a tower whose weights were moved a little, so that int8 changes its embeddings less.

    Args:
        tower: folded, unit norm, eval mode.
        inputs: what it takes [N, ...]; each step draws `BATCH` of them.
        steps: of AdamW.
        seed: of the draws.

    Raises:
        ValueError: no inputs.
    """
    if not len(inputs):
        raise ValueError(
            "tuning for int8 learns from real pictures and captions: give packed ones, --data FOLDER"
        )
    tuned = copy.deepcopy(tower)
    for parameter in tuned.parameters():
        parameter.requires_grad_(False)
    chosen = {
        name: module
        for name, module in tuned.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not is_delicate(name, module)
    }
    for module in chosen.values():
        module.weight.requires_grad_(True)
        register_parametrization(module, "weight", _RoundedWeight())
    handles = [module.register_forward_pre_hook(_RoundedInput()) for module in chosen.values()]
    weights = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=0.0)
    rng = np.random.default_rng(seed)
    interval = 0.1 if sys.stderr.isatty() else 10
    for step in tqdm(range(steps), desc="tune for int8", unit="step", mininterval=interval):
        rows = rng.choice(len(inputs), size=min(BATCH, len(inputs)), replace=False)
        batch = torch.from_numpy(np.ascontiguousarray(inputs[rows]))
        with torch.no_grad():
            target_BD = tower(batch)
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 - step / steps)
        optimizer.zero_grad()
        (1 - (tuned(batch) * target_BD).sum(dim=1)).mean().backward()
        optimizer.step()
    for handle in handles:
        handle.remove()
    for module in chosen.values():
        remove_parametrizations(module, "weight", leave_parametrized=False)
    return tuned.requires_grad_(False).eval()


class _RoundedWeight(nn.Module):
    """Rounds to int8 with a scale for each output channel; gradients pass as if it did not."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().flatten(1).abs().amax(dim=1).clamp(min=1e-8) / _LEVELS
        return torch.fake_quantize_per_channel_affine(
            weight, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -_LEVELS, _LEVELS
        )


class _RoundedInput:
    """Rounds what a layer is given to 8 bits, over the range that it has had so far."""

    def __init__(self) -> None:
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = args
        low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
        if self._low is None or self._high is None:
            self._low, self._high = low, high
        self._low, self._high = torch.lerp(self._low, low, _PACE), torch.lerp(self._high, high, _PACE)
        scale = ((self._high - self._low) / 255).clamp(min=1e-8)
        zero = (-self._low / scale).round().clamp(0, 255).to(torch.int32)
        return (torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255),)
