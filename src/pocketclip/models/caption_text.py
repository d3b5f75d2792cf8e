"""The two halves of a caption decoder: one reads the caption alone, the other goes on with it, looking at the picture.

CoCa (arXiv 2205.01917), section 3.2: the lower half of the decoder is unimodal and ends in a class token, the text's
embedding; the upper half alternates causal self-attention with cross-attention, and predicts the next token.

Shape suffixes: B batch, L tokens, C channels, D embedding, M rows of a picture, N heads, H channels of a head, V tokens
of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pocketclip.models.attention_pool import CrossAttention
from pocketclip.models.projection import Projection
from pocketclip.models.text import TextConfig, check_length, init_text_weights
from pocketclip.models.transformer import FeedForward, SelfAttention

PADDING = 0
"""The id that texts are filled up with. In CLIP's vocabulary it is the exclamation mark too, which is never written."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The upper, multimodal half of a caption decoder; its channels and vocabulary are the text tower's.

    Attributes:
        heads: attention heads, a divisor of the channels.
        layers: pairs of a self-attention and a cross-attention block.
        mlp_ratio: hidden channels of a feed-forward network over the channels.
    """

    heads: int
    layers: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.layers < 1:
            raise ValueError(
                f"DecoderConfig: heads is {self.heads} and layers {self.layers}; both must be positive."
            )


class CaptionBlock(nn.Module):
    """Causal self-attention and feed-forward, each pre-normalised and residual, [B, L, C] -> [B, L, C]."""

    def __init__(self, width: int, *, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads=heads, causal=True)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, hidden=int(width * mlp_ratio))

    def forward(self, x_BLC: Tensor, visible_B1LL: Tensor | None = None) -> Tensor:
        """[B, L, C] -> [B, L, C]; a token sees those before it, or those that `visible_B1LL` is true for."""
        if visible_B1LL is None:
            x_BLC = x_BLC + self.attention(self.norm(x_BLC))
        else:
            query, key, value = self.queries_keys_values(x_BLC)
            seen_BNLH = F.scaled_dot_product_attention(query, key, value, attn_mask=visible_B1LL)
            x_BLC = x_BLC + self.attention.out(seen_BNLH.transpose(1, 2).flatten(2))
        return x_BLC + self.ffn(self.ffn_norm(x_BLC))

    def queries_keys_values(self, x_BLC: Tensor) -> tuple[Tensor, ...]:
        """[B, L, C] -> three of [B, N, L, H]."""
        parts = self.attention.qkv(self.norm(x_BLC)).chunk(3, dim=-1)
        return tuple(part.unflatten(-1, (self.attention.heads, -1)).transpose(1, 2) for part in parts)


class LookingBlock(nn.Module):
    """Cross-attention to a picture and feed-forward, [B, L, C] and [B, M, C] -> [B, L, C]."""

    def __init__(self, width: int, *, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.seen_norm = nn.LayerNorm(width)
        self.attention = CrossAttention(width, seen_width=width, heads=heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, hidden=int(width * mlp_ratio))

    def forward(self, x_BLC: Tensor, seen_BMC: Tensor) -> Tensor:
        """[B, L, C] and [B, M, C] -> [B, L, C]."""
        x_BLC = x_BLC + self.attention(self.norm(x_BLC), self.seen_norm(seen_BMC))
        return x_BLC + self.ffn(self.ffn_norm(x_BLC))

    def keys_and_values(self, seen_BMC: Tensor) -> tuple[Tensor, Tensor]:
        """What every token of every caption of a picture looks at: keys and values [B, N, M, H]."""
        return self.attention.keys_and_values(self.seen_norm(seen_BMC))


class CaptionText(nn.Module):
    """The lower half: token and position embeddings, causal blocks, and a class token after the last token.

    Attributes:
        gradient_checkpointing: whether blocks are computed again in the backward pass.
    """

    def __init__(self, config: TextConfig, *, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        width = config.width
        self.token = nn.Embedding(config.vocab_size, width)
        self.class_token = nn.Parameter(torch.empty(width))
        self.position = nn.Parameter(torch.empty(config.context_length + 1, width))
        self.blocks = nn.ModuleList(
            CaptionBlock(width, heads=config.heads, mlp_ratio=config.mlp_ratio) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = Projection(width, embed_dim, bias=False)
        init_text_weights(self, width=width, layers=config.layers)
        nn.init.normal_(self.class_token, std=0.01)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Token ids int64 [B, L], L at most context_length -> embeddings float32 [B, D], any length.

        Raises:
            ValueError: more tokens than context_length.
        """
        return self.read(tokens_BL)[0]

    def read(self, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids int64 [B, L] -> embeddings float32 [B, D], any length, and every token's channels [B, L, C].

        Raises:
            ValueError: more tokens than context_length.
        """
        length = check_length(tokens_BL, context_length=self.config.context_length)
        class_B1C = self.class_token.expand(len(tokens_BL), 1, -1)
        x_BLC = torch.cat([self.token(tokens_BL), class_B1C.to(self.token.weight.dtype)], dim=1)
        x_BLC = x_BLC + self.position[: length + 1]
        visible_B1LL = visible(tokens_BL)
        for block in self.blocks:
            x_BLC = _run(block, x_BLC, visible_B1LL, recompute=self.gradient_checkpointing)
        return self.head(self.norm(x_BLC[:, -1])), x_BLC[:, :-1]

    def fold_in_place(self) -> CaptionText:
        """Itself: a folded tower has no gradients to save memory for."""
        self.gradient_checkpointing = False
        return self


class CaptionDecoder(nn.Module):
    """The upper half: blocks that look at what came before, blocks that look at the picture, logits of what comes next.

    Attributes:
        gradient_checkpointing: whether blocks are computed again in the backward pass.
    """

    def __init__(self, config: DecoderConfig, *, width: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        heads, mlp_ratio = config.heads, config.mlp_ratio
        self.blocks = nn.ModuleList(
            CaptionBlock(width, heads=heads, mlp_ratio=mlp_ratio) for _ in range(config.layers)
        )
        self.looking = nn.ModuleList(
            LookingBlock(width, heads=heads, mlp_ratio=mlp_ratio) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        _init_decoder(self, width=width, layers=2 * config.layers)

    def forward(self, seen_BMC: Tensor, x_BLC: Tensor) -> Tensor:
        """What captions look at [B, M, C] and tokens' channels [B, L, C] -> logits [B, L, V] of the next tokens."""
        return self.head(self.states(seen_BMC, x_BLC))

    def states(self, seen_BMC: Tensor, x_BLC: Tensor) -> Tensor:
        """The same as `forward`, but for the last linear map: [B, L, C]."""
        for block, looking in zip(self.blocks, self.looking, strict=True):
            x_BLC = _run(block, x_BLC, recompute=self.gradient_checkpointing)
            x_BLC = _run(looking, x_BLC, seen_BMC, recompute=self.gradient_checkpointing)
        return self.norm(x_BLC)

    def fold_in_place(self) -> CaptionDecoder:
        """Itself: a folded network has no gradients to save memory for."""
        self.gradient_checkpointing = False
        return self


def visible(tokens_BL: Tensor) -> Tensor:
    """Which places a place sees, bool [B, 1, L + 1, L + 1], the class token last.

    A place sees itself and those before it. Padding is hidden, one place late: a place is hidden when the token before
    it is padding. The published weights were trained so, and their embeddings depend on it.
    """
    length = tokens_BL.shape[1] + 1
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=tokens_BL.device).tril()
    is_there_BL = F.pad(tokens_BL != PADDING, (1, 0), value=True)
    return causal_LL & is_there_BL[:, None, None, :]


def _run(block: nn.Module, x_BLC: Tensor, *others: Tensor, recompute: bool) -> Tensor:
    """block(x, ...), its activations computed again in the backward pass if `recompute` and gradients are on."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, x_BLC, *others, use_reentrant=False)
    return block(x_BLC, *others)


def _init_decoder(decoder: CaptionDecoder, *, width: int, layers: int) -> None:
    """Starting values as the text tower's (CLIP, arXiv 2103.00020, section 2.5), the logits' of unit variance."""
    output_std = width**-0.5 * (2 * layers) ** -0.5
    for module in decoder.modules():
        if isinstance(module, SelfAttention):
            nn.init.normal_(module.qkv.weight, std=width**-0.5)
            nn.init.zeros_(module.qkv.bias)
        if isinstance(module, SelfAttention | CrossAttention):
            nn.init.normal_(module.out.weight, std=output_std)
            nn.init.zeros_(module.out.bias)
        if isinstance(module, FeedForward):
            nn.init.normal_(module.up.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(module.down.weight, std=output_std)
    nn.init.normal_(decoder.head.weight, std=width**-0.5)
