"""Distillation of a teacher ensemble's similarity matrices into a student's."""

# Shape suffixes: B pairs in the batch, D dimensions of an embedding (each teacher has its own D).

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TeacherRows:
    """One teacher's embeddings of a batch.

    Attributes:
        image_embed_BD: unit-norm embeddings of the very views that the student sees, [B, D].
        text_embed_BD: unit-norm embeddings of the very captions, [B, D].
        logit_scale: the teacher's own inverse temperature.
    """

    image_embed_BD: Tensor
    text_embed_BD: Tensor
    logit_scale: float


def distill_loss(
    image_embed_BD: Tensor, text_embed_BD: Tensor, *, logit_scale: Tensor, teachers: Mapping[str, TeacherRows]
) -> Tensor:
    """1/(2bK) sum over the K teachers of KL(teacher || student), image-to-text and text-to-image (eq. 2-3).

    Args:
        image_embed_BD: the student's unit-norm image embeddings [B, D].
        text_embed_BD: the student's unit-norm text embeddings [B, D].
        logit_scale: scalar, the student's inverse temperature.
        teachers: by name; each keeps its own width and its own logit scale.

    Returns:
        Scalar loss in nats, zero where the student's similarities equal every teacher's.
    """
    if not teachers:
        raise ValueError("the distillation loss needs at least one teacher: train on reinforced shards")
    logits_BB = logit_scale * image_embed_BD @ text_embed_BD.T
    image_to_text_BB, text_to_image_BB = F.log_softmax(logits_BB, dim=1), F.log_softmax(logits_BB.T, dim=1)
    total = logits_BB.new_zeros(())
    for rows in teachers.values():
        target_BB = rows.logit_scale * rows.image_embed_BD @ rows.text_embed_BD.T
        for student_BB, teacher_BB in ((image_to_text_BB, target_BB), (text_to_image_BB, target_BB.T)):
            log_teacher_BB = F.log_softmax(teacher_BB, dim=1)
            total = total + F.kl_div(student_BB, log_teacher_BB, reduction="batchmean", log_target=True)
    return total / (2 * len(teachers))
