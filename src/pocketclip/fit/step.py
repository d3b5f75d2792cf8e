"""One update: forward, loss, backward, clipping, and what to do when numbers are not finite."""

# Shape suffixes: B rows of a batch; a 0-d output is the same for every row.

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pocketclip.fit.ranks import average_left_out, clip_gradient, gradients_kept_back

BatchT = TypeVar("BatchT")
Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Objective(Protocol[BatchT]):
    """What is minimised. The model is only ever called in `encode`."""

    def prepare(self, model: nn.Module) -> None:
        """Called before each step with the plain model, to bound its parameters, say."""
        ...

    def split(self, batch: BatchT, *, parts: int) -> Sequence[BatchT]:
        """`batch` in that many parts, in order."""
        ...

    def encode(self, model: nn.Module, batch: BatchT) -> tuple[Tensor, ...]:
        """Outputs of the model for a batch: tensors [B, ...], and 0-d ones that do not depend on the batch."""
        ...

    def loss(self, outputs: tuple[Tensor, ...], batch: BatchT) -> Mapping[str, Tensor]:
        """0-d terms by name, of the `outputs` of `encode`, [B, ...] or 0-d each.

        `loss` is minimised. The mean over processes of `loss` is the loss of all their rows.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Stepper(Generic[BatchT]):
    """Everything an update needs but the batch.

    Attributes:
        model: the plain model, whose parameters move.
        runner: what is called in its place: compiled, or spread over processes, or the model itself.
        objective: what is minimised.
        optimizer: of the model's parameters.
        scaler: of fp16's loss; disabled otherwise.
        precision: of the forward pass; weights, loss and updates are in the weights' own.
        clip_norm: largest norm of the whole gradient.
        parts: a batch goes through the model in so many parts, one after the other.
        seed: of what the model draws (stochastic depth), with the step, the process and the part.
        rank: this process.
    """

    model: nn.Module
    runner: nn.Module
    objective: Objective[BatchT]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    clip_norm: float
    parts: int
    seed: int
    rank: int

    def __call__(self, batch: BatchT, *, step: int, lr: float) -> dict[str, float]:
        """One update, or none where the gradient is not finite.

        Args:
            batch: of this process.
            step: its number, from 1.
            lr: learning rate.

        Returns:
            The loss terms and `grad_norm`, the norm before clipping; nan or inf where nothing was updated.
        """
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.prepare(self.model)
        terms = self._backward(batch, step=step)
        average_left_out(self.model)
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradient(self.model, largest=self.clip_norm)
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: float(value.detach()) for name, value in terms.items()} | {"grad_norm": norm}

    def _backward(self, batch: BatchT, *, step: int) -> Mapping[str, Tensor]:
        if self.parts == 1:
            outputs = self._encode(batch, step=step, part=0)
            terms = self.objective.loss(outputs, batch)
            self.scaler.scale(terms["loss"]).backward()
            return terms
        return self._backward_in_parts(batch, step=step)

    def _backward_in_parts(self, batch: BatchT, *, step: int) -> Mapping[str, Tensor]:
        """The gradient of the whole batch's loss, every negative included, in the memory of one part.

        The outputs of all parts are computed without gradient; the loss is differentiated by them; then each part is
        computed again, with gradient, and gets its share (Gao et al., 2021, arXiv 2101.06983). Both times it draws
        the same numbers; the statistics of BatchNorms are those of a part, and counted once.
        """
        pieces = self.objective.split(batch, parts=self.parts)
        with torch.no_grad(), _buffers_kept(self.model):
            first = [self._encode(piece, step=step, part=i) for i, piece in enumerate(pieces)]
        joined = tuple(_join(parts).requires_grad_() for parts in zip(*first, strict=True))
        terms = self.objective.loss(joined, batch)
        self.scaler.scale(terms["loss"]).backward()
        sizes = [len(next(output for output in part if output.ndim)) for part in first]
        gradients = list(zip(*(_part(output, sizes=sizes) for output in joined), strict=True))
        for i, (piece, gradient) in enumerate(zip(pieces, gradients, strict=True)):
            kept_back = gradients_kept_back(self.runner) if i < len(pieces) - 1 else nullcontext()
            with kept_back:
                outputs = self._encode(piece, step=step, part=i)
                learnt = [number for number, output in enumerate(outputs) if output.requires_grad]
                torch.autograd.backward([outputs[n] for n in learnt], [gradient[n] for n in learnt])
        return terms

    def _encode(self, batch: BatchT, *, step: int, part: int) -> tuple[Tensor, ...]:
        torch.manual_seed(_seed(self.seed, step, self.rank, part))
        kind = _AUTOCAST.get(self.precision)
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=kind) if kind else nullcontext():
            return self.objective.encode(self.runner, batch)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


@contextmanager
def _buffers_kept(model: nn.Module) -> Generator[None]:
    """What the block does to running statistics is undone."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    yield
    for name, value in model.named_buffers():
        value.copy_(before[name])


def _join(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts[0].ndim else parts[0].clone()


def _part(joined: Tensor, *, sizes: Sequence[int]) -> Sequence[Tensor]:
    """Each part's share of the gradient by a joined output; that of a 0-d one is the first part's."""
    gradient = torch.zeros_like(joined) if joined.grad is None else joined.grad
    if joined.ndim:
        return gradient.split(list(sizes))
    return [gradient, *(torch.zeros_like(gradient) for _ in sizes[1:])]
