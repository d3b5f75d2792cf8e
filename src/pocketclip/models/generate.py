"""Writing captions: what to ask of a captioner, and the loop that draws one token after the other.

Sampling with a nucleus: Holtzman et al. (arXiv 1904.09751); repetition penalty: CTRL (arXiv 1909.05858), section 4.1.

Shape suffixes: B pictures, N captions being written, L tokens, V tokens of the vocabulary, C H W a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pocketclip.models.captioner import Captioner
from pocketclip.models.generate_beams import search
from pocketclip.models.generate_choice import NotFiniteError, Rules, check_finite, choose, noise
from pocketclip.models.generate_linear import Linears
from pocketclip.models.generate_steps import CachedSteps, Steps

__all__ = ["NotFiniteError", "Style", "Writer", "rules_of", "sample"]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How captions are written.

    Attributes:
        num_captions: captions of each picture, written in one pass.
        max_length: tokens of a caption at most, the end counted; it is cut there.
        min_length: tokens before the end may come.
        temperature: that logits are divided by; 0 takes the likeliest token.
        top_k: sample among the so many likeliest tokens; None for all.
        top_p: of these, among the likeliest that together have this share of probability, in (0, 1].
        beams: partial captions that a beam search keeps of a picture; 1 for no search. A search draws nothing, so
            temperature is 0.
        beam_groups: groups of the beams, a divisor of theirs, which search one after the other.
        diversity_penalty: taken off a token's logarithm for every beam of the earlier groups that chose it at the same
            place (diverse beam search, arXiv 1610.02424).
        length_penalty: a search compares sums of logarithms divided by length to this power.
        repetition_penalty: logits of tokens that were written already are divided by it, or multiplied where negative;
            1 leaves them.
        no_repeat_ngram: so many tokens in a row are never written twice; 0 for no such rule.
    """

    num_captions: int = 1
    max_length: int = 30
    min_length: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 0.9
    beams: int = 1
    beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        for name in ("num_captions", "max_length", "beams", "beam_groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.min_length <= self.max_length:
            raise ValueError(f"min_length must be 0 to max_length {self.max_length}, got {self.min_length}")
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be a number of at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not 0.0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0, got {self.repetition_penalty}")
        if self.no_repeat_ngram < 0 or not 0.0 <= self.diversity_penalty < math.inf:
            raise ValueError("no_repeat_ngram and diversity_penalty must be at least 0")
        self._check_search()

    def _check_search(self) -> None:
        if self.beams % self.beam_groups:
            raise ValueError(f"beams {self.beams} must be a multiple of beam_groups {self.beam_groups}")
        if self.beams > 1 and self.temperature != 0.0:
            raise ValueError(f"a search with {self.beams} beams draws nothing: give temperature 0")
        if self.temperature == 0.0 and self.num_captions > self.beams:
            raise ValueError(
                f"temperature 0 writes the same caption {self.num_captions} times: give num_captions 1, or "
                "as many beams"
            )


class Writer:
    """Writes captions with one model, batch after batch; what can be prepared is prepared once.

    Args:
        model: in evaluation mode, its weights not to be changed from now on.
    """

    def __init__(self, model: Captioner) -> None:
        self._model = model
        self._linears: Linears | None = None

    @torch.inference_mode()
    def write(self, image_BCHW: Tensor, *, style: Style, seeds: Sequence[int] = ()) -> list[list[list[int]]]:
        """Captions of pictures, as ids without start and end.

        Every picture is seen once, and every token computed once. A caption depends on its picture, its seed and its
        number: neither on the batch nor on how many captions there are (but for the last bits of sums).

        Args:
            image_BCHW: [B, 3, H, W], resized and normalised as the variant says, on the model's device.
            style: how.
            seeds: of each picture, 0 to 2^64 - 1; needed where anything is drawn.

        Returns:
            For every picture `num_captions` captions; of a search there may be fewer.

        Raises:
            ValueError: longer captions than the model's texts, or not as many seeds as pictures.
            NotFiniteError: the weights have diverged.
        """
        config, pictures = self._model.config, len(image_BCHW)
        longest = config.text.context_length
        if style.max_length > longest:
            raise ValueError(f"max_length {style.max_length} is beyond the model's {longest} tokens")
        if style.temperature > 0 and len(seeds) != pictures:
            raise ValueError(f"{pictures} pictures need as many seeds, got {len(seeds)}")
        if not pictures:
            return []
        each = style.beams if style.beams > 1 else style.num_captions
        if self._linears is None:
            self._linears = Linears(rows=pictures * each)
        steps = CachedSteps(
            self._model, image_BCHW, rows_each=each, length=style.max_length, linears=self._linears
        )
        rules = rules_of(style, vocab_size=config.text.vocab_size)
        if style.beams == 1:
            return sample(steps, rules, style=style, seeds=seeds, pictures=pictures)
        return search(
            steps,
            rules,
            pictures=pictures,
            beams=style.beams,
            groups=style.beam_groups,
            diversity_penalty=style.diversity_penalty,
            length_penalty=style.length_penalty,
            max_length=style.max_length,
            num_captions=style.num_captions,
        )


def rules_of(style: Style, *, vocab_size: int) -> Rules:
    """The rules of a style for a tokenizer's vocabulary, whose last two ids are start and end and whose first pads."""
    return Rules(
        start=vocab_size - 2,
        end=vocab_size - 1,
        never=(0, vocab_size - 2),
        min_length=style.min_length,
        repetition_penalty=style.repetition_penalty,
        no_repeat_ngram=style.no_repeat_ngram,
    )


def sample(
    steps: Steps, rules: Rules, *, style: Style, seeds: Sequence[int], pictures: int
) -> list[list[list[int]]]:
    """Draws captions token by token; those that have ended are taken out when they are a quarter of the rows.

    Args:
        steps: with `num_captions` rows a picture, neighbours.
        rules: what may be written.
        style: how it is drawn.
        seeds: of each picture.
        pictures: B.
    """
    count, length = style.num_captions, style.max_length
    num = pictures * count
    noise_NL = noise(seeds, count=count, length=length) if style.temperature > 0 else torch.zeros(num, length)
    tokens_NL = torch.full((num, length), rules.end, dtype=torch.int64)
    ended_N = torch.zeros(num, dtype=torch.bool)
    rows = torch.arange(num)  # the caption that each row of `steps` writes
    last_N = torch.full((num,), rules.start, dtype=torch.int64)
    for place in range(length):
        logits_NV = steps.step(last_N)
        check_finite(logits_NV, picture_N=rows // count)
        rules.apply(logits_NV, tokens_NL[rows, :place])
        last_N = choose(
            logits_NV,
            noise_NL[rows, place].to(logits_NV.device),
            temperature=style.temperature,
            top_k=style.top_k,
            top_p=style.top_p,
        ).cpu()
        last_N = last_N.masked_fill(ended_N[rows], rules.end)
        tokens_NL[rows, place] = last_N
        ended_N[rows] = last_N == rules.end
        going = (last_N != rules.end).nonzero().squeeze(1)
        if not len(going):
            break
        if 4 * len(going) <= 3 * len(rows):
            steps.keep(going)
            rows, last_N = rows[going], last_N[going]
    captions = [row[: row.index(rules.end)] if rules.end in row else row for row in tokens_NL.tolist()]
    return [captions[start : start + count] for start in range(0, num, count)]
