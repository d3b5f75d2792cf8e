"""ViT image towers: a transformer over patches, from one patch convolution or MobileCLIP's conv stem.

MobileCLIP2 (arXiv 2508.20691) Table 8: B is ViT-B/16 with the convolutional stem, L-14 is ViT-L/14.

Shape suffixes: B batch, C channels, H height, W width, L tokens, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pocketclip.models.convolution import ConvNorm
from pocketclip.models.features import FeatureMap, FeaturePyramid
from pocketclip.models.projection import Projection
from pocketclip.models.recompute import run
from pocketclip.models.residual import drop_path_rates
from pocketclip.models.resize import resize_image_positions
from pocketclip.models.transformer import TransformerBlock


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """An image tower of the ViT kind, for square pictures of one size.

    Attributes:
        kind: tag that tells the tower's class in JSON.
        image_px: side of the picture, a multiple of patch_px.
        patch_px: side of a patch; with the convolutional stem a power of two, at least 8.
        width: channels of a token.
        heads: attention heads, a divisor of width.
        layers: transformer blocks.
        mlp_ratio: hidden channels of a feed-forward network over width.
        stem: one convolution a patch, or a 4 x 4 convolution followed by 2 x 2 ones (B).
        pool: the class token's output, or the mean of the patches'.
        class_position: whether the class token has a position of its own (L-14, not B).
        pre_norm: LayerNorm before the first block; the patch convolution has no bias then (L-14).
        norm_eps: epsilon of the LayerNorms (B 1e-6, L-14 1e-5).
        drop_path: stochastic depth of the last block; it rises linearly from 0 in the first.
    """

    kind: Literal["vit"] = "vit"
    image_px: int
    patch_px: int
    width: int
    heads: int
    layers: int
    mlp_ratio: float = 4.0
    stem: Literal["patch", "conv"] = "patch"
    pool: Literal["cls", "avg"] = "cls"
    class_position: bool = True
    pre_norm: bool = False
    norm_eps: float = 1e-6
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.patch_px < 1 or self.image_px < 1 or self.image_px % self.patch_px:
            raise ValueError(
                f"ViTConfig: image_px {self.image_px} is not a multiple of patch_px {self.patch_px}."
            )
        if self.width % self.heads:
            raise ValueError(f"ViTConfig: width {self.width} is not a multiple of heads {self.heads}.")
        if self.stem not in ("patch", "conv"):
            raise ValueError(f"ViTConfig: stem is {self.stem!r}; it is 'patch' or 'conv'.")
        if self.pool not in ("cls", "avg"):
            raise ValueError(f"ViTConfig: pool is {self.pool!r}; it is 'cls' or 'avg'.")
        if self.stem == "conv" and (self.patch_px < 8 or self.patch_px & (self.patch_px - 1)):
            raise ValueError(
                f"ViTConfig: patch_px {self.patch_px} with stem 'conv'; that stem needs 8, 16, 32 and so on."
            )
        if self.stem == "conv" and self.width % 4:
            raise ValueError(f"ViTConfig: width {self.width} with stem 'conv' must be a multiple of 4.")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"ViTConfig: drop_path is {self.drop_path}, not in [0, 1).")


class ViT(nn.Module):
    """The image tower: stem, class token, positions, blocks, pooling, LayerNorm, projection.

    Attributes:
        gradient_checkpointing: whether stem and blocks are computed again in the backward pass.
        any_size: whether it takes square pictures of any multiple of a patch, its positions interpolated each time.
    """

    any_size = False

    def __init__(self, config: ViTConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width = config.width
        self.stem = _patch_stem(config) if config.stem == "patch" else _conv_stem(config)
        num_patches = (config.image_px // config.patch_px) ** 2
        has_class = config.pool == "cls"
        num_positions = num_patches + (has_class and config.class_position)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02) if has_class else None
        self.position = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_positions, width), std=0.02))
        self.pre_norm = nn.LayerNorm(width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(
                    width,
                    heads=config.heads,
                    mlp_ratio=config.mlp_ratio,
                    eps=config.norm_eps,
                    drop_path=rate,
                )
                for rate in drop_path_rates(config.drop_path, config.layers)
            )
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = Projection(width, embed_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Pictures [B, 3, image_px, image_px], normalised as the variant says -> embeddings float32 [B, D].

        Raises:
            ValueError: pictures of another size.
        """
        return self.embed(self.forward_features(image_BCHW))

    def forward_features(self, image_BCHW: Tensor) -> FeaturePyramid:
        """Pictures [B, 3, image_px, image_px] -> the last block's patches as one map, and its class token.

        Neither has passed the last LayerNorm, `norm`, which comes after pooling.

        Raises:
            ValueError: pictures of another size.
        """
        side, (height, width) = self.config.image_px, image_BCHW.shape[-2:]
        fits = self.any_size and width % self.config.patch_px == 0
        if height != width or (width != side and not fits):
            raise ValueError(
                f"This ViT takes pictures of {side} x {side} pixels, not "
                f"{image_BCHW.shape[-2]} x {image_BCHW.shape[-1]}: resize them as its preprocessing does."
            )
        recompute = self.gradient_checkpointing
        patches_BCHW = run(self.stem, image_BCHW, recompute=recompute)
        patches_BLC = patches_BCHW.flatten(2).transpose(1, 2)
        x_BLC = self.pre_norm(self._with_class_and_position(patches_BLC, side=width // self.config.patch_px))
        for block in self.blocks:
            x_BLC = run(block, x_BLC, recompute=recompute)
        class_BC = None
        if self.class_token is not None:
            class_BC, x_BLC = x_BLC[:, 0], x_BLC[:, 1:]
        map_BCHW = x_BLC.transpose(1, 2).unflatten(2, patches_BCHW.shape[2:])
        return FeaturePyramid((FeatureMap(map_BCHW, stride=self.config.patch_px),), class_BC)

    def embed(self, features: FeaturePyramid) -> Tensor:
        """The embeddings float32 [B, D] of pictures whose features are at hand."""
        pooled_BC = features.class_BC
        if pooled_BC is None:
            pooled_BC = features.maps[-1].map_BCHW.mean((2, 3))
        return self.head(self.norm(pooled_BC))

    def fold_in_place(self) -> ViT:
        """Itself: a folded tower has no gradients to save memory for."""
        self.gradient_checkpointing = False
        return self

    def _with_class_and_position(self, x_BLC: Tensor, *, side: int) -> Tensor:
        position_LC = resize_image_positions(
            self.position, old_side=self.config.image_px // self.config.patch_px, side=side
        )
        if self.class_token is None:
            return x_BLC + position_LC
        class_B1C = self.class_token.to(x_BLC.dtype).expand(x_BLC.shape[0], 1, -1)
        if self.config.class_position:
            return torch.cat([class_B1C, x_BLC], dim=1) + position_LC
        return torch.cat([class_B1C, x_BLC + position_LC], dim=1)


def _patch_stem(config: ViTConfig) -> nn.Conv2d:
    return nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px, bias=not config.pre_norm)


def _conv_stem(config: ViTConfig) -> nn.Sequential:
    """Non-overlapping convolutions, 4 x 4, then 2 x 2 ones; each but the last with BatchNorm and GELU."""
    hidden = config.width // 4
    layers: list[nn.Module] = [ConvNorm(3, hidden, kernel=4, stride=4), nn.GELU()]
    stride = 4
    while stride * 2 < config.patch_px:
        layers += [ConvNorm(hidden, hidden, kernel=2, stride=2), nn.GELU()]
        stride *= 2
    return nn.Sequential(*layers, nn.Conv2d(hidden, config.width, 2, stride=2))
