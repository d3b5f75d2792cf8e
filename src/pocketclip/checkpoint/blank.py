"""A model without weights: every name, shape and type, and no memory; made in a hundredth of the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pocketclip.models.captioner import network
from pocketclip.models.clip import Clip, ClipConfig

# What starting values are drawn and computed with, in place or by a number. On the meta device it would do nothing,
# after the seconds that importing torch's compiler takes.
_DRAWS = frozenset(
    {"uniform_", "normal_", "trunc_normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_", "mul"}
)


def blank(config: ClipConfig) -> Clip:
    """The un-folded model on the meta device; torch's random state is left as it was.

    Raises:
        ValueError, RuntimeError: sizes that no tower can have.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _NoStartingValues():
        return network(config)


class _NoStartingValues(TorchFunctionMode):
    """Leaves tensors as they were allocated."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        name = getattr(func, "__name__", "")
        if name in _DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        if name == "randn":
            return torch.empty(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
