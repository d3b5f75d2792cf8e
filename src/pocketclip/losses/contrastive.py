"""Contrastive losses: CLIP's softmax (Radford et al., 2021) and SigLIP's sigmoid (Zhai et al., 2023)."""

# Shape suffixes: B pairs of this process, R of a chunk of them, N pairs of all processes, D dimensions.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pocketclip.losses.distill import reinforced_loss
from pocketclip.losses.rows import PairRows
from pocketclip.losses.softmax import chunk_rows


def clip_loss(rows: PairRows, *, logit_scale: Tensor) -> Tensor:
    """Mean of the image-to-text and text-to-image cross-entropies (the L_CLIP of arXiv 2508.20691, eq. 1).

    Args:
        rows: the batch.
        logit_scale: scalar, the inverse temperature (not its logarithm).

    Returns:
        Scalar loss in nats. Under data parallelism the mean over processes is the loss of the whole batch.
    """
    return reinforced_loss(rows, logit_scale=logit_scale, teachers={}, distill_weight=0.0).loss


def siglip_loss(rows: PairRows, *, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    """SigLIP's loss: every pair of the batch is a yes-or-no question of its own (arXiv 2303.15343, eq. 1).

    Args:
        rows: the batch.
        logit_scale: scalar, the inverse temperature (not its logarithm).
        logit_bias: scalar, added to every logit; the paper starts it at -10.

    Returns:
        Scalar: minus the log-likelihoods summed over all texts, mean over this process's images, in nats.
    """

    def chunk(image_RD: Tensor, text_ND: Tensor, scale: Tensor, bias: Tensor, first: int) -> Tensor:
        with torch.autocast(image_RD.device.type, enabled=False):
            logits_RN = scale * image_RD @ text_ND.T + bias
        own_R = logits_RN.diagonal(first)
        # -log sigmoid(-z) for all, and for the own pairs -log sigmoid(z) in its place: the difference is -z.
        return F.softplus(logits_RN).sum() - own_R.sum()

    image_BD, text_ND = rows.image_embed_BD.float(), rows.texts().float()
    step = chunk_rows(len(text_ND))
    total = image_BD.new_zeros(())
    for start in range(0, len(image_BD), step):
        part = image_BD[start : start + step]
        first = rows.first + start
        total = total + checkpoint(
            chunk,
            part,
            text_ND,
            logit_scale,
            logit_bias,
            first,
            use_reentrant=False,
            preserve_rng_state=False,
        )
    return total / len(image_BD)
