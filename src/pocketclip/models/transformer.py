"""Pre-norm transformer blocks, shared by the text tower, the ViT and FastViT's attention.

Shape suffixes: B batch, L tokens, C channels, N heads, H channels of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pocketclip.models.fold import precise
from pocketclip.models.residual import Residual


class SelfAttention(nn.Module):
    """Multi-head self-attention [B, L, C] -> [B, L, C], optionally causal."""

    def __init__(self, width: int, *, heads: int, qkv_bias: bool = True, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.out = nn.Linear(width, width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]."""
        B, L, C = x_BLC.shape
        qkv_3BNLH = self.qkv(x_BLC).reshape(B, L, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q_BNLH, k_BNLH, v_BNLH = qkv_3BNLH.unbind(0)
        out_BNLH = F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, is_causal=self.causal)
        return self.out(out_BNLH.transpose(1, 2).reshape(B, L, C))

    def scale_output(self, scale_C: Tensor) -> None:
        """Take a layer scale [C] into the output projection."""
        scale_linear(self.out, scale_C)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between, [B, L, C] -> [B, L, C]."""

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, width)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]."""
        return self.down(self.act(self.up(x_BLC)))

    def scale_output(self, scale_C: Tensor) -> None:
        """Take a layer scale [C] into the second layer."""
        scale_linear(self.down, scale_C)


class PreNorm(nn.Module):
    """inner(LayerNorm(x)), [B, L, C] -> [B, L, C]."""

    def __init__(self, inner: SelfAttention | FeedForward, *, width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.inner = inner

    def forward(self, x_BLC: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]."""
        return self.inner(self.norm(x_BLC))

    def scale_output(self, scale_C: Tensor) -> None:
        """Take a layer scale [C] into the inner module's last layer."""
        self.inner.scale_output(scale_C)


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each pre-normalised and residual, [B, L, C] -> [B, L, C]."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        mlp_ratio: float,
        causal: bool = False,
        eps: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        attention = SelfAttention(width, heads=heads, causal=causal)
        ffn = FeedForward(width, hidden=int(width * mlp_ratio))
        self.mixer = Residual(PreNorm(attention, width=width, eps=eps), channels=width, drop_path=drop_path)
        self.ffn = Residual(PreNorm(ffn, width=width, eps=eps), channels=width, drop_path=drop_path)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]."""
        return self.ffn(self.mixer(x_BLC))


def scale_linear(layer: nn.Linear | nn.Conv2d, scale_C: Tensor) -> None:
    """Multiply the output channels of a layer with scale_C (float64 [C]), in place."""
    weight = precise(layer.weight)
    layer.weight.data.copy_(weight * scale_C.reshape(-1, *[1] * (weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.data.copy_(precise(layer.bias) * scale_C)
