"""The hybrid text tower of MobileCLIP-S0 (MCt): attention between convolutional blocks over the tokens.

MobileCLIP (arXiv 2311.17049), section 3.2 "Text-RepMixer": the first and the last block mix tokens by a RepMixer of
kernel 1 x 11, those between by self-attention; nothing is causal.

Shape suffixes: B batch, L tokens, C channels, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pocketclip.models.convolution import ConvFFN, RepMixer
from pocketclip.models.projection import Projection
from pocketclip.models.recompute import run
from pocketclip.models.residual import Residual
from pocketclip.models.resize import resize_text_positions
from pocketclip.models.text import at_end_of_text, check_length, init_text_weights
from pocketclip.models.transformer import TransformerBlock


@dataclass(frozen=True, kw_only=True)
class HybridTextConfig:
    """A hybrid text tower: a convolutional block, attention blocks, a convolutional block.

    Attributes:
        kind: tag that tells the tower's class in JSON.
        vocab_size: number of token ids; the largest, vocab_size - 1, is end-of-text.
        context_length: most tokens of a text, start and end included.
        width: channels of a token.
        heads: attention heads, a divisor of width.
        layers: attention blocks; the tower has two blocks more.
        mlp_ratio: hidden channels of a feed-forward network over width.
        mixer_kernel: tokens that a RepMixer and the convolution of its feed-forward network see, odd.
        layer_scale_init: starting value of the layer scales of the convolutional blocks.
    """

    kind: Literal["hybrid"] = "hybrid"
    vocab_size: int = 49408
    context_length: int = 77
    width: int
    heads: int
    layers: int
    mlp_ratio: float = 4.0
    mixer_kernel: int = 11
    layer_scale_init: float = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"HybridTextConfig: width {self.width} is not a multiple of heads {self.heads}.")
        for name in ("vocab_size", "context_length", "layers", "mixer_kernel"):
            if getattr(self, name) < 1:
                raise ValueError(f"HybridTextConfig: {name} is {getattr(self, name)}; it must be positive.")
        if self.mixer_kernel % 2 == 0:
            raise ValueError(f"HybridTextConfig: mixer_kernel is {self.mixer_kernel}; it must be odd.")


class MixerBlock(nn.Module):
    """RepMixer, then a convolutional feed-forward network, both residual, over tokens: [B, L, C] -> [B, L, C].

    Unlike an image tower's RepMixer, this one has no 1 x 1 branch.
    """

    def __init__(self, config: HybridTextConfig) -> None:
        super().__init__()
        width, kernel = config.width, (1, config.mixer_kernel)
        ffn = ConvFFN(width, hidden=int(width * config.mlp_ratio), init_std=0.02, kernel=kernel)
        self.mixer = RepMixer(width, layer_scale_init=config.layer_scale_init, kernels=(kernel,))
        self.ffn = Residual(ffn, channels=width, layer_scale_init=config.layer_scale_init)

    def forward(self, x_BLC: Tensor) -> Tensor:
        """[B, L, C] -> [B, L, C]; padding is zeros beyond both ends."""
        x_BC1L = x_BLC.transpose(1, 2).unsqueeze(2)
        return self.ffn(self.mixer(x_BC1L)).squeeze(2).transpose(1, 2)


class HybridText(nn.Module):
    """The text tower: token and position embeddings, blocks, LayerNorm at end-of-text, projection.

    Attributes:
        gradient_checkpointing: whether blocks are computed again in the backward pass.
    """

    def __init__(self, config: HybridTextConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width = config.width
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Parameter(torch.empty(config.context_length, width))
        attention = [
            TransformerBlock(width, heads=config.heads, mlp_ratio=config.mlp_ratio)
            for _ in range(config.layers)
        ]
        self.blocks = nn.Sequential(MixerBlock(config), *attention, MixerBlock(config))
        self.norm = nn.LayerNorm(width)
        self.head = Projection(width, embed_dim, bias=False)
        init_text_weights(self, width=width, layers=config.layers)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Token ids int64 [B, L], L at most context_length, one end-of-text id a row -> float32 [B, D].

        The end-of-text id is the largest of the vocabulary, so its place is the row's first maximum. Padding
        after it is seen, and the positions of shorter rows are interpolated, as in the published model.

        Raises:
            ValueError: more tokens than context_length.
        """
        length = check_length(tokens_BL, context_length=self.config.context_length)
        position_LC = resize_text_positions(self.position, length)
        x_BLC = self.token(tokens_BL) + position_LC
        for block in self.blocks:
            x_BLC = run(block, x_BLC, recompute=self.gradient_checkpointing)
        return self.head(self.norm(at_end_of_text(x_BLC, tokens_BL)))

    def fold_in_place(self) -> HybridText:
        """Itself: a folded tower has no gradients to save memory for."""
        self.gradient_checkpointing = False
        return self
