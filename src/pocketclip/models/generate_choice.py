"""Choosing the next token: rules that forbid some, numbers that were drawn beforehand, and the likeliest laid in a row.

Nothing is left to a library's generator, and no row to its neighbours.

Shape suffixes: N rows, L tokens, V tokens of the vocabulary, K intervals of probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_INTERVALS = 2048  # of 1 / 128 of a natural logarithm each: sixteen of them, and the rest in the last
_PER_LOGARITHM = 128.0
# SplitMix64 (Steele et al., 2014), in wrapping signed arithmetic.
_STEP, _FIRST, _SECOND = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class NotFiniteError(ValueError):
    """A model gave logits that are not finite.

    Attributes:
        picture: the row of the batch.
    """

    def __init__(self, picture: int) -> None:
        super().__init__(f"logits that are not finite for picture {picture} of the batch")
        self.picture = picture


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What may be written.

    Attributes:
        start: id that stands before a caption.
        end: id that ends it.
        never: ids that are never written.
        min_length: tokens before the end may come.
        repetition_penalty: see `Style`.
        no_repeat_ngram: see `Style`.
    """

    start: int
    end: int
    never: tuple[int, ...] = ()
    min_length: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0

    def apply(self, logits_NV: Tensor, written_NL: Tensor) -> None:
        """Changes logits in place: minus infinity for what must not come next. Where nothing is left, the end may come.

        Args:
            logits_NV: float32.
            written_NL: int64 [N, L], what was written so far, without the start.
        """
        written_NL = written_NL.to(logits_NV.device)
        length = written_NL.shape[1]
        if self.repetition_penalty != 1.0 and length:
            found_NL = logits_NV.gather(1, written_NL)
            less_NL = torch.where(
                found_NL > 0, found_NL / self.repetition_penalty, found_NL * self.repetition_penalty
            )
            logits_NV.scatter_(1, written_NL, less_NL)
        logits_NV[:, list(self.never)] = -torch.inf
        if length < self.min_length:
            logits_NV[:, self.end] = -torch.inf
        if 0 < self.no_repeat_ngram <= length:
            self._forbid_repeats(logits_NV, written_NL)
        nothing_left = logits_NV.amax(dim=-1).isneginf()
        logits_NV[nothing_left, self.end] = 0.0

    def _forbid_repeats(self, logits_NV: Tensor, written_NL: Tensor) -> None:
        """Forbids what would end a row of tokens that was written before."""
        size = self.no_repeat_ngram
        seen_NWS = written_NL.unfold(1, size, 1)
        ending_N1S = written_NL[:, None, written_NL.shape[1] - size + 1 :]
        again_NW = (seen_NWS[..., :-1] == ending_N1S).all(dim=-1)
        row, window = again_NW.nonzero(as_tuple=True)
        logits_NV[row, seen_NWS[row, window, -1]] = -torch.inf


def check_finite(logits_NV: Tensor, *, picture_N: Tensor) -> None:
    """Raises NotFiniteError where a row of logits has a number that is not finite."""
    broken = (~logits_NV.sum(dim=-1).isfinite()).nonzero()
    if len(broken):
        raise NotFiniteError(int(picture_N[broken[0, 0].cpu()]))


def noise(seeds: Sequence[int], *, count: int, length: int) -> Tensor:
    """Numbers in [0, 1), float64 [B * count, length]; each depends on a picture's seed, a row's number and a place.

    A counter-based generator: no number depends on another, so captions may be more, longer, or of fewer pictures.

    Args:
        seeds: of B pictures, 0 to 2^64 - 1.
        count: captions of each.
        length: places of a caption.
    """
    signed = torch.tensor([seed - (1 << 64) if seed >> 63 else seed for seed in seeds], dtype=torch.int64)
    number = torch.arange(1, count + 1, dtype=torch.int64)
    place = torch.arange(1, length + 1, dtype=torch.int64)
    row_N = _mixed(_mixed(signed)[:, None] + number * _STEP).flatten()
    mixed_NL = _mixed(row_N[:, None] + place * _STEP)
    return ((mixed_NL >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def _mixed(value: Tensor) -> Tensor:
    """64 bits of which each depends on all given ones."""
    value = (value ^ _shifted(value, 30)) * _FIRST
    value = (value ^ _shifted(value, 27)) * _SECOND
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def choose(
    logits_NV: Tensor, uniform_N: Tensor, *, temperature: float, top_k: int | None, top_p: float
) -> Tensor:
    """One token for each row; a row's depends on its own logits and number alone.

    The likeliest tokens are laid on [0, 1) in falling order, each as wide as its probability (equal ones by their
    ids), after `top_k` and then `top_p` (arXiv 1904.09751) have cut the tail; the one at the row's number is chosen.
    The vocabulary is not sorted: tokens are counted into intervals of nearly equal probability, and only the two
    intervals are put in order in which the tail and the chosen token are.

    Args:
        logits_NV: of any floating type; minus infinity for tokens that must not come.
        uniform_N: in [0, 1), on the same device.
        temperature: that logits are divided by; 0 takes the likeliest token.
        top_k: so many of the likeliest are left, None for all.
        top_p: of these, the likeliest that together have at least this share are left, in (0, 1].

    Returns:
        int64 [N] ids.
    """
    if temperature == 0:
        return logits_NV.argmax(dim=-1)
    logits_NV = logits_NV.float()
    if top_k is not None and top_k < logits_NV.shape[1]:
        logits_NV = logits_NV.masked_fill(~_likeliest(logits_NV, top_k), -torch.inf)
    below_NV = (logits_NV.amax(dim=-1, keepdim=True) - logits_NV) / temperature
    row = _Row(below_NV)
    target_N = uniform_N.double() * row.total_N
    if top_p < 1.0:
        last_N, reached_N = row.find(top_p * row.total_N, inclusive=True)
        target_N = uniform_N.double() * reached_N
    chosen_N, _ = row.find(target_N, inclusive=False)
    if top_p < 1.0:  # rounding may leave the cut by one token
        place_N, most_N = (below_NV.gather(1, token[:, None])[:, 0] for token in (chosen_N, last_N))
        chosen_N = torch.where(place_N > most_N, last_N, chosen_N)
    return chosen_N


class _Row:
    """Rows of tokens in falling order of their shares, without sorting them.

    Args:
        below_NV: float32, how far the logarithm of each token's share is below the row's largest.
    """

    def __init__(self, below_NV: Tensor) -> None:
        self._below_NV = below_NV
        self._share_NV = (-below_NV).exp()
        self._interval_NV = (below_NV * _PER_LOGARITHM).clamp(max=_INTERVALS - 1).long()
        num = len(below_NV)
        place_NV = self._interval_NV + _INTERVALS * torch.arange(num, device=below_NV.device)[:, None]
        mass = torch.zeros(num * _INTERVALS, dtype=torch.float64, device=below_NV.device)
        mass.index_add_(0, place_NV.flatten(), self._share_NV.flatten().double())
        mass_NK = mass.view(num, _INTERVALS)
        self._reached_NK = mass_NK.cumsum(dim=1)
        self._last_N = _INTERVALS - 1 - (mass_NK.flip(1) > 0).int().argmax(dim=1)
        self.total_N = self._reached_NK[:, -1]

    def find(self, target_N: Tensor, *, inclusive: bool) -> tuple[Tensor, Tensor]:
        """The token of each row with which the sum from the likeliest on comes to lie above a target, and that sum.

        Args:
            target_N: float64, in the unit of shares.
            inclusive: whether a sum that is the target will do.
        """
        under_NK = (
            self._reached_NK < target_N[:, None] if inclusive else self._reached_NK <= target_N[:, None]
        )
        interval_N = torch.minimum(under_NK.sum(dim=1), self._last_N)
        before_N = self._reached_NK.gather(1, (interval_N - 1).clamp(min=0)[:, None])[:, 0]
        before_N = before_N.where(interval_N > 0, 0.0)
        is_there_NV = (self._interval_NV == interval_N[:, None]) & (self._share_NV > 0)
        row, token = is_there_NV.nonzero(as_tuple=True)
        by_share = self._below_NV[row, token].argsort(stable=True)
        token = token[by_share[row[by_share].argsort(stable=True)]]
        share = self._share_NV[row, token].double()
        num_N = torch.bincount(row, minlength=len(target_N))
        first_N = num_N.cumsum(0) - num_N
        summed = share.cumsum(0)
        skipped_N = (summed - share)[first_N]
        reached = summed - skipped_N[row] + before_N[row]
        under = reached < target_N[row] if inclusive else reached <= target_N[row]
        num_under_N = torch.zeros_like(num_N).index_add_(0, row, under.long())
        found_N = first_N + torch.minimum(num_under_N, num_N - 1)
        return token[found_N], reached[found_N]


def _likeliest(logits_NV: Tensor, num: int) -> Tensor:
    """Which tokens are among the `num` likeliest, of equal ones those with smaller ids: bool [N, V]."""
    least_N1 = logits_NV.topk(num, dim=-1).values[:, -1:]
    above_NV = logits_NV > least_N1
    equal_NV = logits_NV == least_N1
    room_N1 = num - above_NV.sum(dim=-1, keepdim=True)
    return above_NV | (equal_NV & (equal_NV.cumsum(dim=-1) <= room_N1))
