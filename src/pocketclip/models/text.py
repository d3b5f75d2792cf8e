"""The text tower: a plain pre-norm transformer read at the end-of-text token.

MobileCLIP2 (arXiv 2508.20691), Table 8: the base text encoder of CLIP (arXiv 2103.00020, section 2.4); only
variant B has its causal mask.

Shape suffixes: B batch, L tokens, C channels, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pocketclip.models.projection import Projection
from pocketclip.models.recompute import run
from pocketclip.models.transformer import FeedForward, SelfAttention, TransformerBlock


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A plain text tower.

    Attributes:
        kind: tag that tells the tower's class in JSON.
        vocab_size: number of token ids; the largest, vocab_size - 1, is end-of-text.
        context_length: most tokens of a text, start and end included.
        width: channels of a token.
        heads: attention heads, a divisor of width.
        layers: transformer blocks.
        mlp_ratio: hidden channels of a feed-forward network over width.
        causal: whether a token sees only the tokens before it.
    """

    kind: Literal["transformer"] = "transformer"
    vocab_size: int = 49408
    context_length: int = 77
    width: int
    heads: int
    layers: int
    mlp_ratio: float = 4.0
    causal: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"TextConfig: width {self.width} is not a multiple of heads {self.heads}.")
        for name in ("vocab_size", "context_length", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"TextConfig: {name} is {getattr(self, name)}; it must be positive.")


class TextTransformer(nn.Module):
    """The text tower: token and position embeddings, blocks, LayerNorm at end-of-text, projection.

    Attributes:
        gradient_checkpointing: whether blocks are computed again in the backward pass.
    """

    def __init__(self, config: TextConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width = config.width
        self.token = nn.Embedding(config.vocab_size, width)
        self.position = nn.Parameter(torch.empty(config.context_length, width))
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(width, heads=config.heads, mlp_ratio=config.mlp_ratio, causal=config.causal)
                for _ in range(config.layers)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = Projection(width, embed_dim, bias=False)
        init_text_weights(self, width=width, layers=config.layers)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Token ids int64 [B, L], L at most context_length, one end-of-text id a row -> float32 [B, D].

        The end-of-text id is the largest of the vocabulary, so its place is the row's first maximum. Padding
        after it is attended to where the tower is not causal, as in the published models.

        Raises:
            ValueError: more tokens than context_length.
        """
        length = check_length(tokens_BL, context_length=self.config.context_length)
        x_BLC = self.token(tokens_BL) + self.position[:length]
        for block in self.blocks:
            x_BLC = run(block, x_BLC, recompute=self.gradient_checkpointing)
        return self.head(self.norm(at_end_of_text(x_BLC, tokens_BL)))

    def fold_in_place(self) -> TextTransformer:
        """Itself: a folded tower has no gradients to save memory for."""
        self.gradient_checkpointing = False
        return self


def init_text_weights(tower: nn.Module, *, width: int, layers: int) -> None:
    """Starting values of embeddings, projection and transformer blocks, as CLIP's (arXiv 2103.00020, section 2.5)."""
    for name, std in (("token.weight", 0.02), ("position", 0.01), ("head.weight", width**-0.5)):
        nn.init.normal_(tower.get_parameter(name), std=std)
    output_std = width**-0.5 * (2 * layers) ** -0.5
    for module in tower.modules():
        if isinstance(module, SelfAttention):
            nn.init.normal_(module.qkv.weight, std=width**-0.5)
            nn.init.zeros_(module.qkv.bias)
            nn.init.normal_(module.out.weight, std=output_std)
            nn.init.zeros_(module.out.bias)
        elif isinstance(module, FeedForward):
            nn.init.normal_(module.up.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(module.down.weight, std=output_std)


def check_length(tokens_BL: Tensor, *, context_length: int) -> int:
    """The number of tokens a row.

    Raises:
        ValueError: more tokens than context_length.
    """
    length = tokens_BL.shape[1]
    if length > context_length:
        raise ValueError(
            f"A text of {length} tokens is longer than this text tower's context_length "
            f"{context_length}: tokenize with that context length."
        )
    return length


def at_end_of_text(x_BLC: Tensor, tokens_BL: Tensor) -> Tensor:
    """The rows of x_BLC at each text's end-of-text id, the largest: [B, C]."""
    row_B = torch.arange(x_BLC.shape[0], device=x_BLC.device)
    return x_BLC[row_B, tokens_BL.argmax(dim=-1)]
