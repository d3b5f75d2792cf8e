"""The decoder one token at a time: keys and values are kept, the picture is seen once, only the last place has logits.

The class token of the text tower is never run: no token of a caption sees it.

Shape suffixes: B pictures, N captions being written, L tokens, C channels, M rows of a picture, A attention heads, H
channels of a head, V tokens of the vocabulary, R rows a picture.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pocketclip.models.caption_text import CaptionBlock, LookingBlock
from pocketclip.models.captioner import Captioner
from pocketclip.models.generate_linear import Linears


class Steps(Protocol):
    """Something that tells the next token of captions that are written side by side."""

    def step(self, token_N: Tensor) -> Tensor:
        """Appends a token int64 [N] to each row, the start at first; float32 [N, V] logits of what follows."""
        ...

    def keep(self, row_N: Tensor) -> None:
        """The rows become copies of those at int64 `row_N`: reordered, repeated or left out."""
        ...


class CachedSteps:
    """`Steps` of a captioner. Rows of a picture are neighbours, and stay so.

    Args:
        model: in evaluation mode.
        image_BCHW: [B, 3, H, W], seen here, once.
        rows_each: captions of each picture.
        length: tokens of a caption at most.
        linears: of this model, kept from earlier batches; None to prepare them here.
    """

    def __init__(
        self,
        model: Captioner,
        image_BCHW: Tensor,
        *,
        rows_each: int,
        length: int,
        linears: Linears | None = None,
    ) -> None:
        self._model = model
        self._length = length
        self._place = 0
        self._linear = linears or Linears(rows=len(image_BCHW) * rows_each)
        seen_BMC = model.image.see(image_BCHW)[1]
        self._seen = []
        for block in model.decoder.looking:
            assert isinstance(block, LookingBlock)
            key_BAMH, value_BAMH = block.keys_and_values(seen_BMC)
            self._seen.append((key_BAMH.contiguous(), value_BAMH.contiguous()))
        self._picture_N = torch.arange(len(image_BCHW)).repeat_interleave(rows_each)
        self._slots = _Slots(self._picture_N, device=image_BCHW.device)
        self._kept: list[tuple[Tensor, Tensor]] = []

    def step(self, token_N: Tensor) -> Tensor:
        """Appends a token int64 [N] to each row, the start at first; float32 [N, V] logits of what follows."""
        text, decoder = self._model.text, self._model.decoder
        token_N = token_N.to(text.token.weight.device)
        x_NC = text.token(token_N) + text.position[self._place]
        for index, block in enumerate([*text.blocks, *decoder.blocks]):
            assert isinstance(block, CaptionBlock)
            x_NC = self._attend(block, x_NC, index=index)
            number = index - len(text.blocks)
            if number >= 0:
                looking = decoder.looking[number]
                assert isinstance(looking, LookingBlock)
                x_NC = self._look(looking, x_NC, index=number)
        self._place += 1
        return self._linear(decoder.head, decoder.norm(x_NC)).float()

    def keep(self, row_N: Tensor) -> None:
        """The rows become copies of those at int64 `row_N`, pictures in rising order."""
        if torch.equal(row_N, torch.arange(len(self._picture_N))):
            return
        pictures = self._picture_N[row_N]
        assert bool((pictures.diff() >= 0).all())
        there = row_N.to(self._model.text.token.weight.device)
        kept = []
        for pair in self._kept:
            fresh = []
            for old_NALH in pair:
                new_NALH = old_NALH.new_empty((len(row_N), *old_NALH.shape[1:]))
                torch.index_select(old_NALH[:, :, : self._place], 0, there, out=new_NALH[:, :, : self._place])
                fresh.append(new_NALH)
            kept.append((fresh[0], fresh[1]))
        self._kept = kept
        if not torch.equal(pictures, self._picture_N):
            left, pictures = pictures.unique(return_inverse=True)
            if len(left) < len(self._seen[0][0]):
                left = left.to(there.device)
                self._seen = [(key[left], value[left]) for key, value in self._seen]
            self._slots = _Slots(pictures, device=there.device)
        self._picture_N = pictures

    def _attend(self, block: CaptionBlock, x_NC: Tensor, *, index: int) -> Tensor:
        """The block's output for the newest token, which sees itself and what is kept."""
        heads = block.attention.heads
        query, key, value = (
            part.unflatten(-1, (heads, -1))
            for part in self._linear(block.attention.qkv, block.norm(x_NC)).chunk(3, -1)
        )
        if index == len(self._kept):
            shape = (len(x_NC), heads, self._length, key.shape[-1])
            self._kept.append((key.new_empty(shape), key.new_empty(shape)))
        place = self._place
        for kept_NALH, new_NAH in zip(self._kept[index], (key, value), strict=True):
            kept_NALH[:, :, place] = new_NAH
        key_NALH, value_NALH = (kept_NALH[:, :, : place + 1] for kept_NALH in self._kept[index])
        seen_NA1H = F.scaled_dot_product_attention(query[:, :, None], key_NALH, value_NALH)
        x_NC = x_NC + self._linear(block.attention.out, seen_NA1H.flatten(1))
        return self._feed(block, x_NC)

    def _look(self, block: LookingBlock, x_NC: Tensor, *, index: int) -> Tensor:
        """The block's output for the newest token; all captions of a picture look at its keys and values at once."""
        query_NC = self._linear.query(block.attention, block.norm(x_NC))
        query_BARH = self._slots.spread(query_NC).unflatten(-1, (block.attention.heads, -1)).transpose(1, 2)
        seen_BARH = F.scaled_dot_product_attention(query_BARH, *self._seen[index])
        seen_NC = self._slots.gather(seen_BARH.transpose(1, 2).flatten(2))
        x_NC = x_NC + self._linear(block.attention.out, seen_NC)
        return self._feed(block, x_NC)

    def _feed(self, block: CaptionBlock | LookingBlock, x_NC: Tensor) -> Tensor:
        ffn = block.ffn
        return x_NC + self._linear(ffn.down, ffn.act(self._linear(ffn.up, block.ffn_norm(x_NC))))


class _Slots:
    """Rows of several pictures as a rectangle [B, R], where some pictures may have fewer rows than others.

    Args:
        picture_N: int64, of each row, rising.
        device: where the rows are.
    """

    def __init__(self, picture_N: Tensor, *, device: torch.device) -> None:
        counts_B = torch.bincount(picture_N)
        self._shape = (len(counts_B), int(counts_B.max()))
        first_B = counts_B.cumsum(0) - counts_B
        number_N = torch.arange(len(picture_N)) - first_B[picture_N]
        self._is_full = len(picture_N) == self._shape[0] * self._shape[1]
        self._slot_N = (picture_N * self._shape[1] + number_N).to(device)

    def spread(self, x_NC: Tensor) -> Tensor:
        """[N, C] -> [B, R, C], zeros where a picture has no such row."""
        if self._is_full:
            return x_NC.view(*self._shape, -1)
        spread = x_NC.new_zeros((self._shape[0] * self._shape[1], x_NC.shape[1]))
        return spread.index_copy_(0, self._slot_N, x_NC).view(*self._shape, -1)

    def gather(self, x_BRC: Tensor) -> Tensor:
        """[B, R, C] -> [N, C]."""
        flat = x_BRC.flatten(0, 1)
        return flat if self._is_full else flat[self._slot_N]
