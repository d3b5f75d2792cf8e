"""A tower in float16, but for the parts that would overflow: found by running it, not guessed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pocketclip.export.towers import PixelTower, TowerRequest, UnitNormTower

_BATCH = 16  # inputs that overflow is looked for with
_LIMIT = torch.finfo(torch.float16).max / 4  # other pictures than these may be larger


class HalfInput(nn.Module):
    """A module in float16 whose input may be float32."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """[...] of any type -> what the module gives."""
        return self.inner(x.half() if x.is_floating_point() else x)


class FloatIsland(nn.Module):
    """A module that stays in float32 among others in float16."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """float16 [...] -> float16."""
        return self.inner(x.float()).half()


def to_half(tower: nn.Module, inputs: Tensor) -> tuple[nn.Module, tuple[str, ...]]:
    """Converts a tower in place: float16 weights and arithmetic, float32 where activations come near the largest half.

    A module stays in float32 if anything inside it, but nothing at its own edges, exceeds a quarter of 65,504.

    Args:
        tower: folded, in eval mode, in float32; changed.
        inputs: a batch of real inputs.

    Returns:
        The tower, and the names of the modules that stayed in float32.

    Raises:
        ValueError: it overflows at its very edges.
    """
    largest = _largest_activations(tower, inputs)
    if largest.get("", 0.0) > _LIMIT:
        raise ValueError(
            f"the tower's own output reaches {largest['']:.0f}, too much for float16: export it in bf16 or fp32"
        )
    names = _islands(tower, "", largest)
    if "" in names:
        return tower, ("all",)
    exact = {name: copy.deepcopy(tower.get_submodule(name)) for name in names}  # weights may overflow as well
    tower.half()
    for name, module in exact.items():
        parent, _, child = name.rpartition(".")
        setattr(tower.get_submodule(parent), child, FloatIsland(module))
    return HalfInput(tower), tuple(names)


def make_half(request: TowerRequest) -> tuple[str, ...]:
    """Puts the tower's network in float16; its unit norm, and its normalisation of pixels, stay in float32."""
    found = request.calibration[:_BATCH] if len(request.calibration) else request.example.numpy()
    inputs = torch.from_numpy(np.ascontiguousarray(found))
    outer = request.tower
    if isinstance(outer, PixelTower):
        outer, inputs = outer.tower, outer.normalise(inputs)
    assert isinstance(outer, UnitNormTower)
    outer.tower, islands = to_half(outer.tower, inputs)
    return islands


def _largest_activations(tower: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Largest absolute value at the edges of every module: name -> value."""
    largest: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def note(module: nn.Module, taken: tuple[object, ...], given: object) -> None:
            del module
            for value in (*taken, given):
                if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                    largest[name] = max(largest.get(name, 0.0), float(value.abs().max()))

        return note

    hooks = [module.register_forward_hook(watch(name)) for name, module in tower.named_modules()]
    try:
        with torch.inference_mode():
            tower(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _islands(module: nn.Module, name: str, largest: dict[str, float]) -> list[str]:
    """Smallest modules with safe edges that hold all unsafe ones."""
    children = {child: f"{name}.{child}" if name else child for child, _ in module.named_children()}
    if any(largest.get(inner, 0.0) > _LIMIT for inner in children.values()):
        return [name]
    return [
        island
        for child, inner in children.items()
        for island in _islands(module.get_submodule(child), inner, largest)
    ]
