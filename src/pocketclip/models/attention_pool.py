"""Attentional pooling: learned queries look at every place of a picture; one becomes its embedding.

CoCa (arXiv 2205.01917), section 3.2, in the form that the published weights have: one pooler, whose first query is the
contrastive one.

Shape suffixes: B batch, C channels, H channels of a head, L places or tokens, M queries, N heads, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketclip.models.fastvit import FastViT, FastViTConfig
from pocketclip.models.features import FeaturePyramid
from pocketclip.models.projection import Projection
from pocketclip.models.vit import ViT, ViTConfig


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """An attentional pooler.

    Attributes:
        num_queries: rows that leave it, at least 2: the first becomes the embedding, captions look at the others.
        heads: attention heads, a divisor of the embedding's channels.
    """

    num_queries: int = 256
    heads: int = 8

    def __post_init__(self) -> None:
        if self.num_queries < 2 or self.heads < 1:
            raise ValueError(
                f"PoolConfig: num_queries is {self.num_queries} and heads {self.heads}; there must be at least 2 "
                "queries (one for the embedding, one for captions) and 1 head."
            )


class CrossAttention(nn.Module):
    """Multi-head attention of tokens [B, L, C] to what is looked at [B, M, C'].

    Where C' is C, the three projections are one matrix, as in the published weights.
    """

    def __init__(self, width: int, *, seen_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = width
        if seen_width == width:
            self.weight = nn.Parameter(torch.empty(3 * width, width))
        else:
            self.query_weight = nn.Parameter(torch.empty(width, width))
            self.key_weight = nn.Parameter(torch.empty(width, seen_width))
            self.value_weight = nn.Parameter(torch.empty(width, seen_width))
        self.bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)
        for weight in self._weights():
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BLC: Tensor, seen_BMC: Tensor) -> Tensor:
        """[B, L, C] and [B, M, C'] -> [B, L, C]."""
        key_BNMH, value_BNMH = self.keys_and_values(seen_BMC)
        return self.look(x_BLC, key_BNMH, value_BNMH)

    def look(self, x_BLC: Tensor, key_BNMH: Tensor, value_BNMH: Tensor) -> Tensor:
        """The tokens' attention to what `keys_and_values` made of what is looked at: [B, L, C]; x may be [1, L, C]."""
        query_BLC = F.linear(x_BLC, self._weights()[0], self.bias[: self.width])
        query_BNLH = self._heads(query_BLC).expand(len(key_BNMH), -1, -1, -1)
        out_BNLH = F.scaled_dot_product_attention(query_BNLH, key_BNMH, value_BNMH)
        return self.out(out_BNLH.transpose(1, 2).flatten(2))

    def keys_and_values(self, seen_BMC: Tensor) -> tuple[Tensor, Tensor]:
        """[B, M, C'] -> keys and values [B, N, M, H]; they are the same for every token that looks."""
        weights, biases = self._weights()[1:], self.bias[self.width :].chunk(2)
        key_BMC, value_BMC = (F.linear(seen_BMC, w, b) for w, b in zip(weights, biases, strict=True))
        return self._heads(key_BMC), self._heads(value_BMC)

    def _weights(self) -> tuple[Tensor, ...]:
        """Of queries, keys and values."""
        if hasattr(self, "weight"):
            return self.weight.chunk(3)
        return self.query_weight, self.key_weight, self.value_weight

    def _heads(self, x_BLC: Tensor) -> Tensor:
        return x_BLC.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AttentionPool(nn.Module):
    """Learned queries that look at places: [B, L, C] -> [B, M, D]."""

    def __init__(self, config: PoolConfig, *, width: int, embed_dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(config.num_queries, embed_dim))
        self.query_norm = nn.LayerNorm(embed_dim)
        self.seen_norm = nn.LayerNorm(width)
        self.attention = CrossAttention(embed_dim, seen_width=width, heads=config.heads)

    def forward(self, places_BLC: Tensor) -> Tensor:
        """[B, L, C] -> [B, M, D]."""
        query_1MD = self.query_norm(self.query)[None]
        return self.attention(query_1MD, self.seen_norm(places_BLC))


class PooledImage(nn.Module):
    """An image tower whose places are pooled by attention: an embedding, and rows for captions to look at.

    Attributes:
        tower: without its own way out.
        gradient_checkpointing: whether the tower's activations are computed again in the backward pass.
    """

    def __init__(self, config: FastViTConfig | ViTConfig, *, pool: PoolConfig, embed_dim: int) -> None:
        super().__init__()
        self.tower = _headless(config)
        width = _places_width(config)
        self.pool = AttentionPool(pool, width=width, embed_dim=embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = Projection(embed_dim, embed_dim, bias=False)
        nn.init.normal_(self.head.weight, std=embed_dim**-0.5)

    @property
    def config(self) -> FastViTConfig | ViTConfig:
        """Of the tower."""
        return self.tower.config

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether the tower's activations are computed again in the backward pass."""
        return self.tower.gradient_checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enabled: bool) -> None:
        self.tower.gradient_checkpointing = enabled

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], normalised as the variant says -> embeddings float32 [B, D], any length."""
        return self.see(image_BCHW)[0]

    def forward_features(self, image_BCHW: Tensor) -> FeaturePyramid:
        """Pictures [B, 3, H, W] -> every stage's map of the tower."""
        return self.tower.forward_features(image_BCHW)

    def embed(self, features: FeaturePyramid) -> Tensor:
        """The embeddings float32 [B, D] of pictures whose features are at hand."""
        return self.pooled(features)[0]

    def see(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures -> embeddings float32 [B, D], any length, and what captions look at [B, M - 1, D]."""
        return self.pooled(self.forward_features(image_BCHW))

    def pooled(self, features: FeaturePyramid) -> tuple[Tensor, Tensor]:
        """As `see`, of pictures whose features are at hand."""
        rows_BMD = self.norm(self.pool(self._places(features)))
        return self.head(rows_BMD[:, 0]), rows_BMD[:, 1:]

    def fold_in_place(self) -> PooledImage:
        """Itself: the tower folds on its own."""
        return self

    def _places(self, features: FeaturePyramid) -> Tensor:
        """All places of the last map [B, L, C], a class token first."""
        map_BCHW = features.maps[-1].map_BCHW
        if isinstance(self.tower, FastViT):
            map_BCHW = self.tower.expand(map_BCHW)
        places_BLC = map_BCHW.flatten(2).transpose(1, 2)
        if features.class_BC is None:
            return places_BLC
        return torch.cat([features.class_BC[:, None], places_BLC], dim=1)


def _headless(config: FastViTConfig | ViTConfig) -> FastViT | ViT:
    """The tower without the layers that only its own pooling needs."""
    if isinstance(config, FastViTConfig):
        fastvit = FastViT(config, embed_dim=1)
        fastvit.register_module("head", None)
        return fastvit
    vit = ViT(config, embed_dim=1)
    vit.register_module("head", None)
    vit.register_module("norm", None)
    return vit


def _places_width(config: FastViTConfig | ViTConfig) -> int:
    if isinstance(config, FastViTConfig):
        return int(config.widths[-1] * config.final_ratio)
    return config.width
