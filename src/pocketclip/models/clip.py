"""CLIP: an image tower and a text tower that meet in one embedding, and a temperature.

MobileCLIP2 (arXiv 2508.20691), section 3; CLIP (arXiv 2103.00020), section 2.

Shape suffixes: B batch, C channels, H height, W width, L tokens, D embedding.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pocketclip.models.fastvit import FastViT, FastViTConfig
from pocketclip.models.features import FeaturePyramid
from pocketclip.models.hybrid_text import HybridText, HybridTextConfig
from pocketclip.models.projection import unit_norm
from pocketclip.models.resize import resize_image_positions, resize_text_positions
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

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory in training: activations inside a block are computed twice instead of kept.

        Gradients and the running statistics of BatchNorm stay the same.
        """
        self.image.gradient_checkpointing = enabled
        self.text.gradient_checkpointing = enabled

    def resized(self, *, image_px: int | None = None, context_length: int | None = None) -> Clip:
        """A new model for pictures or texts of another size, its position embeddings interpolated.

        The other weights are copies, so a model of the same sizes computes the same. A FastViT takes any picture as
        it is; a ViT's positions are interpolated as timm does when it loads weights, a text tower's as open_clip does.

        Args:
            image_px: side of the square pictures, for a ViT a multiple of its patch; None keeps it.
            context_length: most tokens of a text, start and end included; None keeps it.

        Raises:
            ValueError: sizes that the towers cannot have.
        """
        if image_px is not None and image_px < 1:
            raise ValueError(f"image_px is {image_px}; a picture has at least 1 pixel a side.")
        model = copy.deepcopy(self)
        if image_px is not None and isinstance(model.image, ViT):
            _resize_image(model.image, image_px)
        if context_length is not None:
            _resize_text(model.text, context_length)
        model.config = replace(self.config, image=model.image.config, text=model.text.config)
        return model

    def forward_features(self, image_BCHW: Tensor) -> FeaturePyramid:
        """Every stage's map of pictures [B, 3, H, W], with its stride; `image.embed` makes embeddings of them."""
        return self.image.forward_features(image_BCHW)

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


def _resize_image(tower: ViT, image_px: int) -> None:
    old = tower.config
    tower.config = replace(old, image_px=image_px)
    position_LC = resize_image_positions(
        tower.position.detach(), old_side=old.image_px // old.patch_px, side=image_px // old.patch_px
    )
    tower.position = nn.Parameter(position_LC, requires_grad=tower.position.requires_grad)


def _resize_text(tower: TextTransformer | HybridText, context_length: int) -> None:
    tower.config = replace(tower.config, context_length=context_length)  # ty: ignore[invalid-assignment]
    position_LC = resize_text_positions(tower.position.detach(), context_length)
    tower.position = nn.Parameter(position_LC, requires_grad=tower.position.requires_grad)


def _image_tower(config: FastViTConfig | ViTConfig, *, embed_dim: int) -> FastViT | ViT:
    if isinstance(config, FastViTConfig):
        return FastViT(config, embed_dim=embed_dim)
    return ViT(config, embed_dim=embed_dim)


def _text_tower(config: TextConfig | HybridTextConfig, *, embed_dim: int) -> TextTransformer | HybridText:
    if isinstance(config, HybridTextConfig):
        return HybridText(config, embed_dim=embed_dim)
    return TextTransformer(config, embed_dim=embed_dim)
