"""CoCa: a CLIP that also writes captions, word by word, while looking at the picture.

CoCa (arXiv 2205.01917), section 3; MobileCLIP2 (arXiv 2508.20691), section 2.4, writes its synthetic captions with it.

Shape suffixes: B batch, C channels, H height, W width, L tokens, D embedding, M rows of a picture, V tokens of the
vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pocketclip.models.attention_pool import PoolConfig, PooledImage
from pocketclip.models.caption_text import CaptionDecoder, CaptionText, DecoderConfig
from pocketclip.models.clip import INITIAL_TEMPERATURE, Clip, ClipConfig
from pocketclip.models.projection import unit_norm
from pocketclip.models.resize import resize_image_positions, resize_text_positions
from pocketclip.models.text import TextConfig
from pocketclip.models.vit import ViT


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig(ClipConfig):
    """A CLIP with a caption decoder.

    Attributes:
        image: the image tower; a pooler takes the place of its own way out.
        text: the lower half of the decoder; causal, and its width is embed_dim. Its context_length does not count
            the class token that follows a text.
        embed_dim: channels of an embedding, and of everything between picture and words.
        pool: what the caption looks at, and the embedding, are pooled so.
        decoder: the upper half.
    """

    text: TextConfig
    pool: PoolConfig = field(default_factory=PoolConfig)
    decoder: DecoderConfig

    def __post_init__(self) -> None:
        if not self.text.causal or self.text.width != self.embed_dim:
            raise ValueError(
                f"CaptionerConfig: the text tower must be causal and as wide as embed_dim {self.embed_dim}; its width "
                f"is {self.text.width} and causal {self.text.causal}."
            )
        for part, heads in (("pool", self.pool.heads), ("decoder", self.decoder.heads)):
            if self.embed_dim % heads:
                raise ValueError(
                    f"CaptionerConfig: embed_dim {self.embed_dim} is not a multiple of the {part}'s {heads} heads."
                )


class CaptionerOutput(NamedTuple):
    """What the contrastive and the caption loss need.

    Attributes:
        image_embed_BD: unit norm, float32 [B, D].
        text_embed_BD: the same of the texts.
        logit_scale: the scale of their products.
        caption_logits_BLV: [B, L - 1, V]; at place i, of token i + 1.
        labels_BL: int64 [B, L - 1], the tokens themselves; 0 after the end, which no loss should count.
    """

    image_embed_BD: Tensor
    text_embed_BD: Tensor
    logit_scale: Tensor
    caption_logits_BLV: Tensor
    labels_BL: Tensor


class CaptionerScores(NamedTuple):
    """What the contrastive loss needs, and what a score made of the caption's states.

    Attributes:
        image_embed_BD: unit norm, float32 [B, D].
        text_embed_BD: the same of the texts.
        logit_scale: the scale of their products.
        score_B: of each caption [B].
    """

    image_embed_BD: Tensor
    text_embed_BD: Tensor
    logit_scale: Tensor
    score_B: Tensor


Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""States [B, L, C] before the last linear map, its weight [V, C] and the labels [B, L] -> a number for each caption
[B]: a loss that never holds all logits."""


class Captioner(Clip):
    """A CLIP that also writes captions; `generate.Writer` does it.

    Attributes:
        image: tower, pictures [B, 3, H, W] -> float32 [B, D]; `image.see` also gives what captions look at.
        text: tower, token ids int64 [B, L] -> float32 [B, D]; `text.read` also gives every token's channels.
        decoder: what captions look at and tokens' channels -> logits.
        logit_scale: scalar parameter, the natural logarithm of the scale; starts at log(1 / 0.07).
    """

    config: CaptionerConfig
    image: PooledImage
    text: CaptionText

    def __init__(self, config: CaptionerConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.image = PooledImage(config.image, pool=config.pool, embed_dim=config.embed_dim)
        self.text = CaptionText(config.text, embed_dim=config.embed_dim)
        self.decoder = CaptionDecoder(
            config.decoder, width=config.text.width, vocab_size=config.text.vocab_size
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Trade time for memory in training: activations inside a block are computed twice instead of kept."""
        super().set_gradient_checkpointing(enabled)
        self.decoder.gradient_checkpointing = enabled

    def resized(self, *, image_px: int | None = None, context_length: int | None = None) -> Captioner:
        """A new model for pictures or texts of another size, its position embeddings interpolated.

        Args:
            image_px: side of the square pictures, for a ViT a multiple of its patch; None keeps it.
            context_length: most tokens of a text, start and end included; None keeps it.

        Raises:
            ValueError: sizes that the towers cannot have.
        """
        if image_px is not None and image_px < 1:
            raise ValueError(f"image_px is {image_px}; a picture has at least 1 pixel a side.")
        model = copy.deepcopy(self)
        tower = model.image.tower
        if image_px is not None and isinstance(tower, ViT):
            old = tower.config
            tower.config = replace(old, image_px=image_px)
            sides = {"old_side": old.image_px // old.patch_px, "side": image_px // old.patch_px}
            tower.position = _parameter(
                resize_image_positions(tower.position.detach(), **sides), like=tower.position
            )
        if context_length is not None:
            text = model.text
            text.config = replace(text.config, context_length=context_length)
            position_LC = resize_text_positions(text.position.detach(), context_length + 1)
            text.position = _parameter(position_LC, like=text.position)
        model.config = replace(self.config, image=tower.config, text=model.text.config)
        return model

    def forward(  # ty: ignore[incompatible-method-override]
        self, image_BCHW: Tensor, tokens_BL: Tensor, *, score: Score | None = None
    ) -> CaptionerOutput | CaptionerScores:
        """Pictures [B, 3, H, W] and token ids [B, L] of their captions -> embeddings, and logits of every next token.

        The picture is seen once, the caption read once, and every token predicted from the true ones before it. With
        `score` the logits are not made: it is given what they would be made of.
        """
        image_embed_BD, seen_BMD = self.image.see(image_BCHW)
        text_embed_BD, x_BLC = self.text.read(tokens_BL)
        embeds = unit_norm(image_embed_BD), unit_norm(text_embed_BD), self.logit_scale.float().exp()
        states_BLC, labels_BL = self.decoder.states(seen_BMD, x_BLC[:, :-1]), tokens_BL[:, 1:]
        if score is not None:
            return CaptionerScores(*embeds, score(states_BLC, self.decoder.head.weight, labels_BL))
        return CaptionerOutput(*embeds, self.decoder.head(states_BLC), labels_BL)

    def caption_logits(self, image_BCHW: Tensor, tokens_BL: Tensor) -> Tensor:
        """Logits [B, L, V] of what follows each token int64 [B, L], all computed at once.

        The plain way, which `generate` does step by step and without computing anything twice.
        """
        return self.decoder(self.image.see(image_BCHW)[1], self.text.read(tokens_BL)[1])


def network(config: ClipConfig) -> Clip:
    """The model of a configuration: a captioner where it has a decoder."""
    return Captioner(config) if isinstance(config, CaptionerConfig) else Clip(config)


def _parameter(value: Tensor, *, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=like.requires_grad)
