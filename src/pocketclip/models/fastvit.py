"""FastViT image towers (MCi0 to MCi4): reparameterisable convolutions below, self-attention at the top.

MobileCLIP2 (arXiv 2508.20691) section 3 and Table 8; blocks from FastViT (arXiv 2303.14189), MobileOne
(arXiv 2206.04040) and RepLKNet (arXiv 2203.06717). Everything with several branches while training folds into
single convolutions (see `fold`).

Shape suffixes: B batch, C channels, H height, W width, L = H * W tokens, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pocketclip.models.convolution import (
    LARGE_KERNEL,
    Branches,
    ConvBlock,
    ConvFFN,
    PositionalConv,
    RepMixer,
    SqueezeExcite,
)
from pocketclip.models.features import FeatureMap, FeaturePyramid
from pocketclip.models.fold import linear_from, norm_affine, precise
from pocketclip.models.projection import Projection
from pocketclip.models.recompute import run
from pocketclip.models.residual import Residual, drop_path_rates
from pocketclip.models.transformer import SelfAttention

STEM_STRIDE = 4


@dataclass(frozen=True, kw_only=True)
class FastViTConfig:
    """An image tower of the FastViT kind, for pictures of any size (strides 4, 8, 16, 32 and so on).

    Attributes:
        kind: tag that tells the tower's class in JSON.
        widths: channels of each stage.
        depths: blocks of each stage.
        mlp_ratio: hidden channels of a feed-forward network over its channels.
        attention_stages: how many of the last stages mix by self-attention, each with a conditional
            positional encoding before it; the others are RepMixer stages.
        squeeze_stages: how many of the last stages have squeeze-and-excitation in their down-sampling.
        norm: what normalises before self-attention: BatchNorm (MCi0-2) or LayerNorm over channels (MCi3-4).
        head_channels: channels of one attention head.
        stem_scale_branch: whether the stem's 3 x 3 convolutions have a 1 x 1 branch (MCi0-2).
        final_ratio: channels of the expanding convolution over the last stage's.
        layer_scale_init: starting value of every layer scale.
        init_std: standard deviation of the feed-forward and linear layers' starting weights.
        drop_path: stochastic depth of the last block; it rises linearly from 0 in the first.
    """

    kind: Literal["fastvit"] = "fastvit"
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratio: float = 3.0
    attention_stages: int = 1
    squeeze_stages: int = 2
    norm: Literal["batch", "layer"] = "batch"
    head_channels: int = 32
    stem_scale_branch: bool = True
    final_ratio: float = 2.0
    layer_scale_init: float = 1e-5
    init_std: float = 0.02
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        stages = len(self.widths)
        if stages < 1 or len(self.depths) != stages:
            raise ValueError(
                f"FastViTConfig: widths {self.widths} and depths {self.depths} need one entry a stage each."
            )
        for low, high in zip(self.widths, self.widths[1:], strict=False):
            if high % low:
                raise ValueError(
                    f"FastViTConfig: each of widths {self.widths} must be a multiple of the one before, "
                    "because down-sampling convolutions are grouped."
                )
        for name in ("attention_stages", "squeeze_stages"):
            if not 0 <= getattr(self, name) <= stages:
                raise ValueError(f"FastViTConfig: {name} is {getattr(self, name)}, not in 0..{stages}.")
        for width in self.widths[stages - self.attention_stages :]:
            if width % self.head_channels:
                raise ValueError(
                    f"FastViTConfig: width {width} of an attention stage is not a multiple of "
                    f"head_channels {self.head_channels}."
                )
        if self.norm not in ("batch", "layer"):
            raise ValueError(f"FastViTConfig: norm is {self.norm!r}; it is 'batch' or 'layer'.")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"FastViTConfig: drop_path is {self.drop_path}, not in [0, 1).")


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each place, [B, C, H, W] -> [B, C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.LayerNorm has
        """[B, C, H, W] -> [B, C, H, W]."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MapAttention(nn.Module):
    """Normalisation and self-attention over all places of a map, [B, C, H, W] -> [B, C, H, W]."""

    def __init__(
        self, channels: int, *, heads: int, norm: Literal["batch", "layer"], init_std: float
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if norm == "batch" else ChannelNorm(channels)
        self.attention = SelfAttention(channels, heads=heads, qkv_bias=False)
        for layer in (self.attention.qkv, self.attention.out):
            nn.init.trunc_normal_(layer.weight, std=init_std)
        nn.init.zeros_(self.attention.out.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        x_BLC = self.norm(x_BCHW).flatten(2).transpose(1, 2)
        return self.attention(x_BLC).transpose(1, 2).reshape(x_BCHW.shape)

    def scale_output(self, scale_C: Tensor) -> None:
        """Take a layer scale [C] into the output projection."""
        self.attention.scale_output(scale_C)

    def fold_in_place(self) -> nn.Module:
        """A BatchNorm moves into the query, key and value projection, which gains a bias; LayerNorm stays."""
        if isinstance(self.norm, nn.BatchNorm2d):
            scale_C, shift_C = norm_affine(self.norm)
            qkv = self.attention.qkv
            weight_OC = precise(qkv.weight)
            self.attention.qkv = linear_from(weight_OC * scale_C, weight_OC @ shift_C, like=qkv.weight)
            self.norm = nn.Identity()
        return self


class Block(nn.Module):
    """A token mixer, then a feed-forward network, both residual: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, mixer: RepMixer | Residual, ffn: Residual) -> None:
        super().__init__()
        self.mixer = mixer
        self.ffn = ffn

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.ffn(self.mixer(x_BCHW))


class Stage(nn.Module):
    """Down-sampling by 2 (not in the first stage), positional encoding (attention stages), blocks.

    [B, C, H, W] -> [B, C', H', W'].
    """

    def __init__(self, downsample: nn.Module | None, position: nn.Module | None, blocks: list[Block]) -> None:
        super().__init__()
        self.downsample = downsample
        self.position = position
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x_BCHW: Tensor, *, recompute: bool = False) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']; see `recompute.run` for `recompute`."""
        if self.downsample is not None:
            x_BCHW = run(self.downsample, x_BCHW, recompute=recompute)
        if self.position is not None:
            x_BCHW = self.position(x_BCHW)
        for block in self.blocks:
            x_BCHW = run(block, x_BCHW, recompute=recompute)
        return x_BCHW


class FastViT(nn.Module):
    """The image tower: stem (stride 4), stages, expanding convolution, mean over places, projection.

    Attributes:
        gradient_checkpointing: whether stem, down-sampling and blocks are computed again in the backward pass.
    """

    def __init__(self, config: FastViTConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.stem = _stem(config.widths[0], scale_branch=config.stem_scale_branch)
        rates = drop_path_rates(config.drop_path, sum(config.depths))
        stages = []
        for index, depth in enumerate(config.depths):
            stages.append(_stage(config, index, drop_paths=rates[:depth]))
            rates = rates[depth:]
        self.stages = nn.Sequential(*stages)
        last = config.widths[-1]
        final = int(last * config.final_ratio)
        self.expand = ConvBlock(
            Branches(last, final, kernels=(3, 1), groups=last),
            squeeze=SqueezeExcite(final, hidden=round(final / 16)),
        )
        self.head = Projection(final, embed_dim)
        nn.init.trunc_normal_(self.head.weight, std=config.init_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], normalised as the variant says -> embeddings float32 [B, D], any length."""
        return self.embed(self.forward_features(image_BCHW))

    def forward_features(self, image_BCHW: Tensor) -> FeaturePyramid:
        """Pictures [B, 3, H, W] -> every stage's map, strides 4, 8, 16 and so on."""
        x_BCHW = run(self.stem, image_BCHW, recompute=self.gradient_checkpointing)
        maps = []
        for index, stage in enumerate(self.stages):
            x_BCHW = stage(x_BCHW, recompute=self.gradient_checkpointing)
            maps.append(FeatureMap(x_BCHW, stride=STEM_STRIDE << index))
        return FeaturePyramid(tuple(maps))

    def embed(self, features: FeaturePyramid) -> Tensor:
        """The embeddings float32 [B, D] of pictures whose features are at hand."""
        map_BCHW = self.expand(features.maps[-1].map_BCHW)
        precision = torch.promote_types(map_BCHW.dtype, torch.float32)
        return self.head(map_BCHW.to(precision).mean((2, 3)))

    def fold_in_place(self) -> FastViT:
        """Itself: a folded tower has no gradients to save memory for."""
        self.gradient_checkpointing = False
        return self


def _stem(width: int, *, scale_branch: bool) -> nn.Sequential:
    kernels = (3, 1) if scale_branch else (3,)
    return nn.Sequential(
        ConvBlock(Branches(3, width, kernels=kernels, stride=2)),
        ConvBlock(Branches(width, width, kernels=kernels, stride=2, groups=width)),
        ConvBlock(Branches(width, width, kernels=(1,))),
    )


def _stage(config: FastViTConfig, index: int, *, drop_paths: list[float]) -> Stage:
    num_stages = len(config.widths)
    width = config.widths[index]
    is_attention = index >= num_stages - config.attention_stages
    is_squeezed = index >= num_stages - config.squeeze_stages
    downsample = None if index == 0 else _downsample(config.widths[index - 1], width, squeeze=is_squeezed)
    position = PositionalConv(width) if is_attention else None
    blocks = [_block(config, width, is_attention=is_attention, drop_path=rate) for rate in drop_paths]
    return Stage(downsample, position, blocks)


def _downsample(in_channels: int, out_channels: int, *, squeeze: bool) -> nn.Sequential:
    large = Branches(
        in_channels, out_channels, kernels=(LARGE_KERNEL, 3), stride=2, groups=in_channels, identity=False
    )
    hidden = max(8, out_channels // 4 // 8 * 8)
    return nn.Sequential(
        ConvBlock(large, squeeze=SqueezeExcite(out_channels, hidden=hidden) if squeeze else None),
        ConvBlock(Branches(out_channels, out_channels, kernels=(1,))),
    )


def _block(config: FastViTConfig, width: int, *, is_attention: bool, drop_path: float) -> Block:
    scale = config.layer_scale_init
    hidden = int(width * config.mlp_ratio)
    ffn = ConvFFN(width, hidden=hidden, init_std=config.init_std)
    residual_ffn = Residual(ffn, channels=width, layer_scale_init=scale, drop_path=drop_path)
    if not is_attention:
        return Block(RepMixer(width, layer_scale_init=scale), residual_ffn)
    heads = width // config.head_channels
    attention = MapAttention(width, heads=heads, norm=config.norm, init_std=config.init_std)
    mixer = Residual(attention, channels=width, layer_scale_init=scale, drop_path=drop_path)
    return Block(mixer, residual_ffn)
