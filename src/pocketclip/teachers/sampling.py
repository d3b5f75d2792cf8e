"""Choosing the next token from a decoder's logits, by numbers that were drawn beforehand."""

# Shape suffixes: N rows, V tokens of the vocabulary.

from __future__ import annotations

import torch
from torch import Tensor


def choose(
    logits_NV: Tensor, uniform_N: Tensor, *, temperature: float, top_k: int | None, top_p: float
) -> Tensor:
    """One token for each row; a row's depends on its own logits and number alone.

    The likeliest tokens are laid on [0, 1) in falling order, each as wide as its probability (equal ones by their
    ids), after `top_k` and then `top_p` (Holtzman et al., 2020) have cut the tail; the one at the row's number is
    chosen. So nothing is left to a library's generator.

    Args:
        logits_NV: of any floating type; minus infinity for tokens that must not come.
        uniform_N: in [0, 1), on the same device.
        temperature: that logits are divided by; 0 takes the likeliest token.
        top_k: so many of the likeliest are left, None for all.
        top_p: of these, the likeliest that together have at least this share are left, in (0, 1].

    Returns:
        int64 [N] ids.
    """
    if temperature == 0:
        return logits_NV.argmax(dim=-1)
    sorted_NV, ids_NV = logits_NV.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        sorted_NV, ids_NV = sorted_NV[:, :top_k], ids_NV[:, :top_k]
    share_NV = (sorted_NV.double() / temperature).softmax(dim=-1)
    before_NV = share_NV.cumsum(dim=-1) - share_NV
    share_NV = share_NV.where(before_NV < top_p, 0.0)
    reached_NV = share_NV.cumsum(dim=-1)
    target_N1 = uniform_N.double()[:, None] * reached_NV[:, -1:]
    # The first token whose interval ends beyond the number; rounding may leave none, then the last that counts.
    place_N1 = (reached_NV <= target_N1).sum(dim=-1, keepdim=True)
    last_N1 = (share_NV > 0).sum(dim=-1, keepdim=True) - 1
    return ids_NV.gather(-1, torch.minimum(place_N1, last_N1)).squeeze(-1)
