"""The captioning loss: cross-entropy of a caption's tokens, without the logits of all of them at once.

CoCa (Yu et al., 2022, arXiv 2205.01917), section 3.2; its total is 1 x contrastive + 2 x captioning.
"""

# Shape suffixes: B captions, L places of a caption, D width, V tokens of the vocabulary, T places that count, R of a
# chunk of them.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Logits of a chunk: 64 MB in float32.
_CHUNK_ELEMENTS = 2**24


def caption_nll(
    hidden_BLD: Tensor,
    head_VD: Tensor,
    targets_BL: Tensor,
    *,
    padding: int,
    bias_V: Tensor | None = None,
    chunk_elements: int = _CHUNK_ELEMENTS,
) -> Tensor:
    """Negative log-likelihood of each caption, summed over its tokens.

    The vocabulary's logits are made for a chunk of places at a time, and again in the backward pass, so that memory
    does not grow with the batch; places of padding are never multiplied. Logits are in the head's type under autocast,
    softmax and sums in float32.

    Args:
        hidden_BLD: the decoder's outputs.
        head_VD: weight of the last linear map, a row for each token.
        targets_BL: int64 ids of the token that follows each place.
        padding: id that does not count.
        bias_V: of the last linear map, where it has one.
        chunk_elements: most logits at a time.

    Returns:
        float32 [B] in nats; 0 for a caption of padding alone.
    """
    counted_BL = targets_BL != padding
    hidden_TD, targets_T = hidden_BLD[counted_BL], targets_BL[counted_BL]
    rows = max(1, chunk_elements // len(head_VD))
    nll = [
        checkpoint(
            _chunk_nll,
            hidden_RD,
            head_VD,
            bias_V,
            targets_R,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for hidden_RD, targets_R in zip(hidden_TD.split(rows), targets_T.split(rows), strict=True)
    ]
    caption_T = counted_BL.nonzero()[:, 0]
    zero_B = hidden_BLD.new_zeros(len(hidden_BLD), dtype=torch.float32)
    return zero_B.index_add(0, caption_T, torch.cat(nll))


def _chunk_nll(hidden_RD: Tensor, head_VD: Tensor, bias_V: Tensor | None, targets_R: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden_RD, head_VD, bias_V).float(), targets_R, reduction="none")
