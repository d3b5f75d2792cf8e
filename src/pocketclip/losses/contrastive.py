"""CLIP's softmax loss (Radford et al., 2021)."""

# Shape suffixes: B pairs in the batch, D dimensions of an embedding.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clip_loss(image_embed_BD: Tensor, text_embed_BD: Tensor, *, logit_scale: Tensor) -> Tensor:
    """Mean of the image-to-text and text-to-image cross-entropies (the L_CLIP of arXiv 2508.20691, eq. 1).

    Args:
        image_embed_BD: unit-norm image embeddings [B, D].
        text_embed_BD: unit-norm text embeddings [B, D]; row i belongs to image i.
        logit_scale: scalar, the inverse temperature (not its logarithm).

    Returns:
        Scalar loss in nats.
    """
    logits_BB = logit_scale * image_embed_BD @ text_embed_BD.T
    target_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, target_B) + F.cross_entropy(logits_BB.T, target_B)) / 2
