"""The softmax losses of reinforced training, exact, in memory that grows with the batch and not with its square.

One direction at a time (queries against all keys), a chunk of queries at a time: the chunk's similarities give its
share of the loss and, at once, of the gradient, and are forgotten. Nothing of the size queries x keys is ever held.
MobileCLIP2 (arXiv 2508.20691), section 2 (total loss, distillation loss); CLIP (arXiv 2103.00020), section 2.3.
"""

# Shape suffixes: Q queries of this process, N keys of all processes, R queries of a chunk, D width of an embedding.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# Elements of a chunk's similarity matrix: 8 MB in float32, near the size of a processor's cache, enough work for a GPU.
_CHUNK_ELEMENTS = 2**21


class TeacherSide(NamedTuple):
    """What one teacher thinks of the queries and of the keys: unit-norm rows and its inverse temperature."""

    query_QD: Tensor
    key_ND: Tensor
    logit_scale: float


def chunk_rows(num_keys: int) -> int:
    """Queries to compare with `num_keys` keys at a time."""
    return max(1, _CHUNK_ELEMENTS // num_keys)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One direction of the loss, its constants.

    Attributes:
        teachers: one or more where distillation counts.
        first_key: the key that belongs to query 0; the others follow in order.
        distill_weight: lambda of (1 - lambda) contrastive + lambda distillation, in [0, 1].
        average_logits: one softmax of the teachers' mean logits, not the mean of their softmaxes.
    """

    teachers: Sequence[TeacherSide]
    first_key: int
    distill_weight: float
    average_logits: bool


def directed_loss(
    query_QD: Tensor, key_ND: Tensor, *, logit_scale: Tensor, direction: Direction
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over the queries of one direction's loss.

    Args:
        query_QD: unit-norm rows.
        key_ND: unit-norm rows; query i belongs to key `first_key + i`.
        logit_scale: scalar, the student's inverse temperature.
        direction: constants.

    Returns:
        Scalars in nats: the weighted loss, which has the gradient; its contrastive and its distillation term, which
        have none (0 where they do not count).
    """
    loss, terms = _Directed.apply(query_QD, key_ND, logit_scale, direction)
    return loss, terms[0], terms[1]


class _Sums:
    """The loss terms, summed over queries, and the gradients of the weighted one."""

    def __init__(self, query_QD: Tensor, key_ND: Tensor) -> None:
        self.terms = query_QD.new_zeros(2, dtype=torch.float64)
        self.query_QD = torch.zeros_like(query_QD)
        self.key_ND = torch.zeros_like(key_ND)
        self.scale = query_QD.new_zeros(())


class _Room:
    """Memory for the matrices of one chunk, used again by the next: fresh pages cost as much as the arithmetic."""

    def __init__(self, like: Tensor, *, num_rows: int, num_keys: int) -> None:
        self._matrices = {
            name: like.new_empty(num_rows, num_keys)
            for name in ("logits", "other", "error", "target", "more")
        }

    def __call__(self, name: str, num_rows: int) -> Tensor:
        return self._matrices[name][:num_rows]


class _Directed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, query_QD: Tensor, key_ND: Tensor, scale: Tensor, direction: Direction
    ) -> tuple[Tensor, Tensor]:
        kind = torch.promote_types(query_QD.dtype, torch.float32)
        dtypes = query_QD.dtype, key_ND.dtype, scale.dtype
        with torch.autocast(query_QD.device.type, enabled=False):
            query_QD, key_ND = query_QD.to(kind), key_ND.to(kind)
            sums = _Sums(query_QD, key_ND)
            step = min(chunk_rows(len(key_ND)), len(query_QD))
            room = _Room(query_QD, num_rows=step, num_keys=len(key_ND))
            for start in range(0, len(query_QD), step):
                rows = slice(start, start + step)
                _add_chunk(sums, query_QD, key_ND, scale.to(kind), rows, direction, room)
            sums.terms /= len(query_QD)
            gradients = (sums.query_QD, sums.key_ND, sums.scale)
        ctx.save_for_backward(*((g / len(query_QD)).to(d) for g, d in zip(gradients, dtypes, strict=True)))
        terms = sums.terms.to(kind)
        weight = direction.distill_weight
        loss = (1.0 - weight) * terms[0] + weight * terms[1]
        ctx.mark_non_differentiable(terms)
        return loss, terms

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query_QD, key_ND, scale = ctx.saved_tensors  # ty: ignore[missing-attribute]
        return query_QD * grad_loss, key_ND * grad_loss, scale * grad_loss, None


def _add_chunk(
    sums: _Sums,
    query_QD: Tensor,
    key_ND: Tensor,
    scale: Tensor,
    rows: slice,
    direction: Direction,
    room: _Room,
) -> None:
    weight = direction.distill_weight
    query_RD = query_QD[rows]
    num_rows = len(query_RD)
    scaled_RD = query_RD * scale
    logits_RN = torch.mm(scaled_RD, key_ND.T, out=room("logits", num_rows))
    row_R = torch.arange(num_rows, device=query_RD.device)
    label_R = row_R + (direction.first_key + rows.start)
    own_R = logits_RN[row_R, label_R]
    # The softmax becomes the gradient by the logits.
    error_RN, norm_R = _softmax(logits_RN, out=room("error", num_rows))
    if weight < 1.0:
        sums.terms[0] += (norm_R - own_R).sum()
    if weight > 0.0:
        target_RN, negative_entropy, count = _target(direction, rows, room)
        cross = _dot(target_RN, logits_RN)
        sums.terms[1] += (negative_entropy - cross) / count + norm_R.sum()
        error_RN.sub_(target_RN, alpha=weight / count)
    error_RN[row_R, label_R] -= 1.0 - weight
    gradient_RD = torch.mm(error_RN, key_ND)
    sums.scale += _dot(gradient_RD, query_RD)
    sums.query_QD[rows] = gradient_RD.mul_(scale)
    sums.key_ND.addmm_(error_RN.T, scaled_RD)


def _target(direction: Direction, rows: slice, room: _Room) -> tuple[Tensor, Tensor, int]:
    """What the student should say of a chunk [R, N] and the sum of p log p, both added up over so many softmaxes."""
    teachers = direction.teachers
    num_rows = len(teachers[0].query_QD[rows])
    target_RN = room("target", num_rows)
    if direction.average_logits:
        joint_RN = room("other", num_rows).zero_()
        for side in teachers:
            scaled_RD = side.query_QD[rows] * side.logit_scale
            joint_RN.addmm_(scaled_RD, side.key_ND.T)
        probability_RN, norm_R = _softmax(joint_RN.div_(len(teachers)), out=target_RN)
        return target_RN, _dot(probability_RN, joint_RN) - norm_R.sum(), 1
    negative_entropy = target_RN.new_zeros(())
    for number, side in enumerate(teachers):
        scaled_RD = side.query_QD[rows] * side.logit_scale
        logits_RN = torch.mm(scaled_RD, side.key_ND.T, out=room("other", num_rows))
        place_RN = target_RN if number == 0 else room("more", num_rows)
        probability_RN, norm_R = _softmax(logits_RN, out=place_RN)
        negative_entropy += _dot(probability_RN, logits_RN) - norm_R.sum()
        if number > 0:
            target_RN.add_(probability_RN)
    return target_RN, negative_entropy, len(teachers)


def _softmax(logits_RN: Tensor, *, out: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over keys, and the logarithm of its normaliser [R]: the likeliest key's probability is 1 / normaliser."""
    torch.softmax(logits_RN, 1, out=out)
    return out, logits_RN.amax(1) - out.amax(1).log()


def _dot(left_RN: Tensor, right_RN: Tensor) -> Tensor:
    return torch.dot(left_RN.flatten(), right_RN.flatten())
