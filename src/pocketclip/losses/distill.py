"""Distillation of a teacher ensemble's similarities into a student's, and the total loss of reinforced training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from pocketclip.losses.rows import PairRows, TeacherRows
from pocketclip.losses.softmax import Direction, TeacherSide, directed_loss


class LossTerms(NamedTuple):
    """Three 0-d tensors, in nats; only `loss` has a gradient, and a term that does not count is 0."""

    loss: Tensor
    clip: Tensor
    distill: Tensor


def reinforced_loss(
    rows: PairRows,
    *,
    logit_scale: Tensor,
    teachers: Mapping[str, TeacherRows],
    distill_weight: float,
    average_logits: bool = False,
) -> LossTerms:
    """(1 - lambda) CLIP + lambda KL, each the mean of image-to-text and text-to-image (arXiv 2508.20691, eq. 1-3).

    Exact, and in memory that grows with the batch and not with its square: see `losses.softmax`.

    Args:
        rows: the student's embeddings.
        logit_scale: scalar, the student's inverse temperature (not its logarithm).
        teachers: by name; each keeps its own width and its own logit scale.
        distill_weight: lambda, in [0, 1].
        average_logits: distil the softmax of the teachers' mean logits instead of the mean of the divergences.

    Returns:
        The loss and its terms. Under data parallelism the mean over processes is the loss of the whole batch.

    Raises:
        ValueError: distillation without a teacher.
    """
    if distill_weight > 0.0 and not teachers:
        raise ValueError("the distillation loss needs at least one teacher: train on reinforced shards")

    def half(*, from_images: bool) -> tuple[Tensor, Tensor, Tensor]:
        def sides(pairs: PairRows) -> tuple[Tensor, Tensor]:
            if from_images:
                return pairs.image_embed_BD, pairs.texts()
            return pairs.text_embed_BD, pairs.images()

        direction = Direction(
            teachers=[TeacherSide(*sides(t.pairs), logit_scale=t.logit_scale) for t in teachers.values()],
            first_key=rows.first,
            distill_weight=distill_weight,
            average_logits=average_logits,
        )
        return directed_loss(*sides(rows), logit_scale=logit_scale, direction=direction)

    forth, back = half(from_images=True), half(from_images=False)
    return LossTerms(*((a + b) / 2 for a, b in zip(forth, back, strict=True)))


def distill_loss(
    rows: PairRows,
    *,
    logit_scale: Tensor,
    teachers: Mapping[str, TeacherRows],
    average_logits: bool = False,
) -> Tensor:
    """1/(2bK) sum over the K teachers of KL(teacher || student), image-to-text and text-to-image (eq. 2-3).

    Its gradient is that of a cross-entropy against the teachers' mean softmax, the form the published code computes.

    Args:
        rows: the student's embeddings.
        logit_scale: scalar, the student's inverse temperature.
        teachers: by name; each keeps its own width and its own logit scale.
        average_logits: as in `reinforced_loss`.

    Returns:
        Scalar loss in nats, zero where the student's similarities equal every teacher's.
    """
    return reinforced_loss(
        rows,
        logit_scale=logit_scale,
        teachers=teachers,
        distill_weight=1.0,
        average_logits=average_logits,
    ).loss
