"""The self-attention of open_clip's blocks, computed in a way that stays fast under automatic mixed precision.

torch's `MultiheadAttention` leaves its fused path under autocast. It then multiplies a batch that it has transposed,
which torch does token by token, with a copy of the weights for each: in bfloat16 on a CPU three times as slow as one
product over all tokens.
"""

# Shape suffixes: B rows, L tokens, H heads, C channels.

from __future__ import annotations

import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn


def merge_attention(model: nn.Module) -> None:
    """Puts `MergedAttention` in the place of the self-attention of every residual block, with the weights it had.

    Attention of any other kind (cross-attention, poolers, timm's, other libraries') is left as it is.
    """
    for module in model.modules():
        if isinstance(module, ResidualAttentionBlock) and not hasattr(module, "ln_1_kv"):
            own = module.attn
            if isinstance(own, nn.MultiheadAttention) and own.batch_first and own.in_proj_bias is not None:
                module.attn = MergedAttention(own)


class MergedAttention(nn.Module):
    """What `nn.MultiheadAttention` is when queries, keys and values are the same tokens.

    Args:
        own: whose weights are used, under the names that they have there; batch first, with biases.
    """

    def __init__(self, own: nn.MultiheadAttention) -> None:
        super().__init__()
        assert own.bias_k is None
        assert not own.add_zero_attn
        self.num_heads = own.num_heads
        self.in_proj_weight = own.in_proj_weight
        self.in_proj_bias = own.in_proj_bias
        self.out_proj = own.out_proj

    def forward(
        self,
        query_BLC: Tensor,
        key_BLC: Tensor,
        value_BLC: Tensor,
        *,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attention over the L tokens of each row.

        Args:
            query_BLC: the tokens.
            key_BLC: the same.
            value_BLC: the same.
            need_weights: of attention; they are not to be had.
            attn_mask: added to the logits, [L, L].

        Returns:
            New tokens [B, L, C], and None for the weights.
        """
        assert key_BLC is query_BLC
        assert value_BLC is query_BLC
        assert not need_weights
        merged = F.linear(query_BLC, self.in_proj_weight, self.in_proj_bias)
        query_BHLC, key_BHLC, value_BHLC = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in merged.chunk(3, dim=-1)
        )
        mask = None if attn_mask is None else attn_mask.to(query_BHLC.dtype)
        seen_BHLC = F.scaled_dot_product_attention(query_BHLC, key_BHLC, value_BHLC, attn_mask=mask)
        return self.out_proj(seen_BHLC.transpose(1, 2).flatten(2)), None
