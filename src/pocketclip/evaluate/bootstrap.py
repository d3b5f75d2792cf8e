"""How sure a mean is: percentile bootstrap intervals of one model, and of two models on the same queries.

Queries that share a concept (two drawings of one thing, the two directions of one picture-caption pair) are
not independent, so what is drawn with replacement is the *group*; by default every query is its own group.

G: groups, R: resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS_AT_A_TIME = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the ends of its interval, in the value's own unit (recalls and accuracies: 0..1)."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the distance from low to high."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """Resamples drawn once and used for every metric of every model over the same queries.

    Attributes:
        num_groups: how many groups there are to draw from, at least 1.
        seed: of the draws; the same seed gives the same intervals.
        resamples: how many times all groups are drawn, at least 1.
        level: share of resamples inside the interval, in (0, 1).
    """

    num_groups: int
    seed: int
    resamples: int = 1000
    level: float = 0.95
    _counts: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_groups < 1:
            raise ValueError("a bootstrap interval needs at least one value")
        if self.resamples < 1:
            raise ValueError(f"resamples must be at least 1, not {self.resamples}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {self.level}")
        counts = _draw_counts(np.random.default_rng(self.seed), self.num_groups, self.resamples)
        object.__setattr__(self, "_counts", counts)

    def interval(self, *parts: ArrayLike, groups: Sequence[ArrayLike] | None = None) -> Interval:
        """The mean of the parts' means, with its percentile interval.

        Args:
            *parts: one array of per-query values (0 or 1 for hits) a part, each not empty. Two parts are the
                two directions of retrieval; their value is the mean of both means.
            groups: for each part, the group (0..num_groups-1) of each query; None: value i is group i.

        Raises:
            ValueError: an empty part, or groups that do not fit the values.
        """
        values = [np.asarray(part, dtype=np.float64) for part in parts]
        if not values or any(part.ndim != 1 or part.size == 0 for part in values):
            raise ValueError("a bootstrap interval needs at least one value")
        if groups is None:
            rows = [np.arange(part.size) for part in values]
        else:
            rows = [np.asarray(part, dtype=np.int64) for part in groups]
        if [part.shape for part in values] != [part.shape for part in rows]:
            raise ValueError("every value needs its group: the lengths of values and groups differ")
        if any(part.min() < 0 or part.max() >= self.num_groups for part in rows):
            raise ValueError(f"groups must lie in 0..{self.num_groups - 1}")
        means_R = np.mean([self._means(part, row) for part, row in zip(values, rows, strict=True)], axis=0)
        low, high = np.nanpercentile(means_R, [50 * (1 - self.level), 50 * (1 + self.level)])
        value = float(np.mean([part.mean() for part in values]))
        return Interval(value=value, low=float(low), high=float(high))

    def _means(self, values_Q: NDArray[np.float64], groups_Q: NDArray[np.int64]) -> NDArray[np.float64]:
        """The mean of the drawn values in each resample; NaN where a resample drew none of them."""
        total_G = np.bincount(groups_Q, weights=values_Q, minlength=self.num_groups)
        size_G = np.bincount(groups_Q, minlength=self.num_groups)
        total_R = (self._counts @ total_G.astype(np.float32)).astype(np.float64)
        size_R = (self._counts @ size_G.astype(np.float32)).astype(np.float64)
        return np.divide(total_R, size_R, out=np.full_like(total_R, np.nan), where=size_R > 0)


def bootstrap_interval(
    values: ArrayLike,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    groups: ArrayLike | None = None,
) -> Interval:
    """The mean of per-query values with its percentile bootstrap interval (Efron 1979).

    Args:
        values: [Q] per-query values, e.g. hits (0 or 1).
        seed: of the draws; the same seed gives the same interval.
        resamples: number of draws.
        level: share of resamples inside the interval, in (0, 1).
        groups: [Q] integers 0..G-1; queries of one group are drawn together. None: each query by itself.

    Raises:
        ValueError: no values, or settings out of range.
    """
    values_Q = np.asarray(values, dtype=np.float64)
    rows = None if groups is None else np.asarray(groups, dtype=np.int64)
    num_groups = values_Q.size if rows is None else int(rows.max(initial=-1)) + 1
    bootstrap = Bootstrap(num_groups=num_groups, seed=seed, resamples=resamples, level=level)
    return bootstrap.interval(values_Q, groups=None if rows is None else [rows])


def bootstrap_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    groups: ArrayLike | None = None,
) -> Interval:
    """Mean of `values - baseline` of two models on the same queries, with its paired percentile interval.

    Both models are seen on the same drawn queries, so what they share (easy and hard queries) cancels.

    Args:
        values: [Q] per-query values of a model.
        baseline: [Q] per-query values of the other model, of the same queries in the same order.
        seed: of the draws.
        resamples: number of draws.
        level: share of resamples inside the interval, in (0, 1).
        groups: as in `bootstrap_interval`.

    Raises:
        ValueError: the two have different lengths, or no values.
    """
    values_Q, baseline_Q = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if values_Q.shape != baseline_Q.shape:
        raise ValueError(
            f"a paired difference needs the same queries: {values_Q.size} values against {baseline_Q.size}"
        )
    return bootstrap_interval(
        values_Q - baseline_Q, seed=seed, resamples=resamples, level=level, groups=groups
    )


def _draw_counts(rng: np.random.Generator, num_groups: int, resamples: int) -> NDArray[np.float32]:
    """[R, G] how often each group was drawn in each resample."""
    counts_RG = np.empty((resamples, num_groups), dtype=np.float32)
    step = max(1, _DRAWS_AT_A_TIME // num_groups)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, num_groups, size=(rows, num_groups)) + num_groups * np.arange(rows)[:, None]
        counted = np.bincount(drawn.ravel(), minlength=rows * num_groups)
        counts_RG[start : start + rows] = counted.reshape(rows, num_groups)
    return counts_RG
