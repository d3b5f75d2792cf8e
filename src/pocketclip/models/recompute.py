"""Gradient checkpointing: a part's activations are computed again in the backward pass instead of being kept.

Training deep nets with sublinear memory cost (arXiv 1604.06174). Gradients, the running statistics of BatchNorm and
the draws of stochastic depth are those of a plain pass.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run(part: nn.Module, x: Tensor, *, recompute: bool) -> Tensor:
    """part(x), with its activations computed again in the backward pass if `recompute` and gradients are on."""
    if not (recompute and torch.is_grad_enabled()):
        return part(x)
    if (
        torch.compiler.is_compiling()
    ):  # the compiler decides itself what is computed twice, and statistics are not
        return checkpoint(part, x, use_reentrant=False)
    return checkpoint(part, x, use_reentrant=False, context_fn=partial(_contexts, part))


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first computation, and what surrounds the second."""
    return nullcontext(), _StatisticsAtRest(part)


class _StatisticsAtRest(AbstractContextManager[None]):
    """BatchNorm moves copies of its running statistics, which are thrown away: they have moved already.

    To stop it from moving any would change what it saves for the backward pass.
    """

    def __init__(self, part: nn.Module) -> None:
        self.part = part
        self.kept: list[tuple[_BatchNorm, dict[str, Tensor | None]]] = []

    def __enter__(self) -> None:
        norms = [norm for norm in self.part.modules() if isinstance(norm, _BatchNorm) and norm.training]
        self.kept = [(norm, dict(norm._buffers)) for norm in norms]
        for norm, buffers in self.kept:
            for name, buffer in buffers.items():
                norm._buffers[name] = None if buffer is None else buffer.clone()

    def __exit__(self, *_: object) -> None:
        for norm, buffers in self.kept:
            norm._buffers.update(buffers)
