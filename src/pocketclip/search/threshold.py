"""Where matches end: the cosine below which a picture is no answer, worked out from the index itself.

Cosines of texts with pictures mean different things in different models, and even for different texts of one model:
some are nearer to all pictures than others. So a query is compared with texts that hardly any collection has a picture
of. How well the best picture of the index seems to match those tells how well a picture can seem to match nothing.

Shapes: S sample of an index, B background texts, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pocketclip.search.direction import Term, combine, spread

Rows = npt.NDArray[np.float32]

LEAST_ITEMS = 30
"""Indexes with fewer items have no statistics to speak of: everything is a match there."""

OFFSET_SHARE = 0.5
"""How much of a query's mean cosine with the index counts as its own offset (docs/benchmarks.md, "Nothing matches")."""

BACKGROUND_QUANTILE = 0.6
"""The share of background texts whose best picture would be no match."""

PAIR_QUANTILE = 0.9
"""Pictures match a picture that is nearer to them than this share of the index's pairs are to each other."""

_PAIRED = 1024  # of the sample: enough for a quantile of their pairs
_TAIL = 0.005  # of the sample: the largest cosines, which are taken to fall off exponentially


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What an index says about scores.

    Attributes:
        sample_SD: vectors of the index, float32 [S, D].
        least: of a text's best cosine, above its offset, for a match; nan where no texts were given.
        least_of_pictures: cosine of two pictures that match.
        offset_share: how much of a text's mean cosine with the index is its own offset.
    """

    sample_SD: Rows
    least: float
    least_of_pictures: float
    offset_share: float = OFFSET_SHARE

    def threshold(self, terms: Sequence[Term]) -> float:
        """The least cosine of a match with a query, of the parts that `direction.combine` adds up.

        A query of several parts asks for as many standard deviations above its mean cosine with the index as the wanted
        parts do, averaged by their share in it.
        """
        wanted = [term for term in terms if term.kind != "unwanted"]
        if len(terms) == 1:
            return self._level(terms[0])
        standing = 0.0
        shares = 0.0
        for term in wanted:
            score_S = self.sample_SD @ term.vector_D
            share = term.weight * spread(score_S)
            standing += share * (self._level(term) - float(score_S.mean())) / spread(score_S)
            shares += share
        score_S = self.sample_SD @ combine(terms)
        return float(score_S.mean()) + spread(score_S) * standing / max(shares, 1e-9)

    def _level(self, term: Term) -> float:
        """The cosine with one wanted part alone that a match has at least."""
        if term.kind == "picture":
            return self.least_of_pictures
        return self.least + self.offset_share * float((self.sample_SD @ term.vector_D).mean())


def calibrate(
    sample_SD: Rows,
    background_BD: Rows | None,
    *,
    num_items: int,
    offset_share: float = OFFSET_SHARE,
    quantile: float = BACKGROUND_QUANTILE,
) -> Calibration | None:
    """Works out what an index says about scores.

    Args:
        sample_SD: unit vectors drawn from the index, float32 [S, D].
        background_BD: unit vectors of texts that show nothing of what is in it, float32 [B, D]; None where queries are
            without texts.
        num_items: of the index; in a large one the best of many pictures is better than in the sample.
        offset_share: how much of a text's mean cosine with the index is its own offset, 0 to 1.
        quantile: share of the background texts that match nothing.

    Returns:
        None where there are fewer than `LEAST_ITEMS`.
    """
    if min(num_items, len(sample_SD)) < LEAST_ITEMS:
        return None
    least = math.nan
    if background_BD is not None:
        score_SB = sample_SD @ background_BD.T
        above_B = expected_best(score_SB, num_items=num_items) - offset_share * score_SB.mean(axis=0)
        least = _quantile(above_B, quantile)
    some_SD = sample_SD[:: max(1, len(sample_SD) // _PAIRED)]
    pairs = some_SD[::2] @ some_SD[1::2].T
    return Calibration(
        sample_SD=sample_SD,
        least=least,
        least_of_pictures=_quantile(pairs, PAIR_QUANTILE),
        offset_share=offset_share,
    )


def expected_best(score_SB: Rows, *, num_items: int) -> Rows:
    """The largest score to be expected among `num_items`, float32 [B], from samples of them, float32 [S, B].

    Where a distribution's tail falls off exponentially, the expected largest of N grows with the logarithm of N by the
    tail's mean excess (extreme values of Gumbel's type).
    """
    num_sampled = len(score_SB)
    best_B = score_SB.max(axis=0)
    if num_items <= num_sampled:
        return best_B
    num_tail = max(5, math.ceil(_TAIL * num_sampled))
    tail_TB = np.partition(score_SB, -num_tail, axis=0)[-num_tail:]
    excess_B = tail_TB.mean(axis=0) - tail_TB.min(axis=0)
    return best_B + excess_B * math.log(num_items / num_sampled)


def _quantile(values: Rows, share: float) -> float:
    """The value below which a share of them lies. (`np.quantile` imports a tenth of a second's worth of modules.)"""
    flat = values.ravel()
    place = round(share * (len(flat) - 1))
    return float(np.partition(flat, place)[place])
