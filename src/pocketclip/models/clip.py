"""CLIP: an image tower and a text tower that meet in one embedding, and a temperature.

MobileCLIP2 (arXiv 2508.20691), section 3; CLIP (arXiv 2103.00020), section 2.

Shape suffixes: B batch, C channels, H height, W width, L tokens, D embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pocketclip.models.fastvit import FastViT, FastViTConfig
from pocketclip.models.hybrid_text import HybridText, HybridTextConfig
from pocketclip.models.projection import unit_norm
from pocketclip.models.text import TextConfig, TextTransformer
from pocketclip.models.vit import ViT, ViTConfig

INITIAL_TEMPERATURE = 0.07


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Two towers and the number of channels of the embedding in which they meet.

    Attributes:
        image: the image tower.
        text: the text tower.
        embed_dim: channels of an embedding.
    """

    image: FastViTConfig | ViTConfig
    text: TextConfig | HybridTextConfig
    embed_dim: int


class ClipOutput(NamedTuple):
    """What a contrastive loss needs: unit-norm embeddings float32 [B, D] and the scale of their products."""

    image_embed_BD: Tensor
    text_embed_BD: Tensor
    logit_scale: Tensor


class Clip(nn.Module):
    """Image tower, text tower and logit scale.

    Attributes:
        image: tower, pictures [B, 3, H, W] -> float32 [B, D].
        text: tower, token ids int64 [B, L] -> float32 [B, D].
        logit_scale: scalar parameter, the natural logarithm of the scale; starts at log(1 / 0.07).
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.image = _image_tower(config.image, embed_dim=config.embed_dim)
        self.text = _text_tower(config.text, embed_dim=config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))

    def encode_image(self, image_BCHW: Tensor, *, normalize: bool = False) -> Tensor:
        """Embed pictures.

        Args:
            image_BCHW: [B, 3, H, W], resized and normalised as the variant says, in the model's dtype.
            normalize: scale embeddings to length 1.

        Returns:
            float32 [B, D], whatever the model's dtype and autocast.
        """
        embed_BD = self.image(image_BCHW)
        return unit_norm(embed_BD) if normalize else embed_BD

    def encode_text(self, tokens_BL: Tensor, *, normalize: bool = False) -> Tensor:
        """Embed texts.

        Args:
            tokens_BL: int64 [B, L], start and end included, zeros after the end.
            normalize: scale embeddings to length 1.

        Returns:
            float32 [B, D], whatever the model's dtype and autocast.
        """
        embed_BD = self.text(tokens_BL)
        return unit_norm(embed_BD) if normalize else embed_BD

    def forward(self, image_BCHW: Tensor, tokens_BL: Tensor) -> ClipOutput:
        """Pictures [B, 3, H, W] and token ids [B, L] -> unit-norm embeddings and exp(logit_scale)."""
        return ClipOutput(
            image_embed_BD=self.encode_image(image_BCHW, normalize=True),
            text_embed_BD=self.encode_text(tokens_BL, normalize=True),
            logit_scale=self.logit_scale.float().exp(),
        )


def _image_tower(config: FastViTConfig | ViTConfig, *, embed_dim: int) -> FastViT | ViT:
    if isinstance(config, FastViTConfig):
        return FastViT(config, embed_dim=embed_dim)
    return ViT(config, embed_dim=embed_dim)


def _text_tower(config: TextConfig | HybridTextConfig, *, embed_dim: int) -> TextTransformer | HybridText:
    if isinstance(config, HybridTextConfig):
        return HybridText(config, embed_dim=embed_dim)
    return TextTransformer(config, embed_dim=embed_dim)
