"""What lies together and what lies alone: near-duplicates, outliers, clusters; pure functions of rows of length 1.

Products of all rows with all are made block by block, so memory does not depend on how many rows there are; time grows
with their square, but for clusters.
"""

# Shape suffixes: N rows, D dimensions, E of them, B rows of a block, P pairs, K clusters, M rows to compare with.

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BLOCK = 2048  # rows: a block of products is 16 MB
_HEAD = 64  # dimensions that are looked at before all are
_SAMPLE = 20_000
_FEW = 50  # one pair in so many is multiplied by itself
_PAIRS = 1 << 14
_STARTED = 8192  # rows with which clusters begin
_PRODUCTS = 1 << 22  # of a block where its other side is not fixed
_ROUNDING = 1e-4  # of a bound, in float32
_MAD_TO_SIGMA = 1.4826  # the median deviation of a normal distribution
_MEAN_TO_SIGMA = 1.2533  # its mean deviation

Rows = npt.NDArray[np.float32]
Members = npt.NDArray[np.int64]
Confirm = Callable[[Members, Members], npt.NDArray[np.bool_]]


def duplicates(vectors_ND: Rows, *, threshold: float, confirm: Confirm | None = None) -> list[Members]:
    """Groups of rows whose neighbours are near: each row is near one other of its group, not all others.

    Exact. With the dimensions turned so that the first ones hold most of the rows, a product of these and the lengths
    of the rest bound the cosine (Cauchy and Schwarz); the rest is multiplied for the pairs that the bound leaves.

    Args:
        vectors_ND: float32 [N, D], length 1.
        threshold: cosine of near rows, at least; above 0, at most 1.
        confirm: has the last word on pairs of near rows: row numbers [P] of one and of the other -> bool [P].

    Returns:
        Row numbers of each group, ascending; groups of two and more, the largest first, then by their first row.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}: cosines of near-duplicates lie above 0 and at most at 1")
    least = threshold - 1e-6  # two copies of a row may have a cosine of 0.9999999
    groups = _Groups(len(vectors_ND))
    for one_P, other_P in _near_pairs(vectors_ND, least=least):
        near_P = np.ones(len(one_P), bool) if confirm is None else confirm(one_P, other_P)
        groups.join(one_P[near_P], other_P[near_P])
    return groups.found()


def _near_pairs(
    vectors_ND: Rows, *, least: float
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    head_NE, rest_N = _turned(vectors_ND)
    for one in range(0, len(vectors_ND), _BLOCK):
        for other in range(one, len(vectors_ND), _BLOCK):
            ones, others = slice(one, one + _BLOCK), slice(other, other + _BLOCK)
            bound_BB = head_NE[ones] @ head_NE[others].T
            if rest_N is not None:
                bound_BB += rest_N[ones, None] * rest_N[others]
            row_P, column_P = np.nonzero(bound_BB >= least - _ROUNDING)
            if len(row_P) > bound_BB.size // _FEW:  # so many are sooner multiplied together than one by one
                cosine_BB = vectors_ND[ones] @ vectors_ND[others].T
                row_P, column_P = np.nonzero(cosine_BB >= least)
            else:
                cosine_P = _products(vectors_ND, row_P + one, column_P + other)
                row_P, column_P = row_P[cosine_P >= least], column_P[cosine_P >= least]
            row_P, column_P = row_P + one, column_P + other
            yield row_P[row_P < column_P], column_P[row_P < column_P]


def _products(vectors_ND: Rows, one_P: Members, other_P: Members) -> npt.NDArray[np.float32]:
    parts = [
        np.einsum("pd,pd->p", vectors_ND[one_P[some]], vectors_ND[other_P[some]])
        for some in (slice(begin, begin + _PAIRS) for begin in range(0, len(one_P), _PAIRS))
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _turned(vectors_ND: Rows) -> tuple[Rows, npt.NDArray[np.float32] | None]:
    """The first dimensions of turned rows, and the lengths of the rest; None where nothing is left."""
    if vectors_ND.shape[1] <= _HEAD:
        return vectors_ND, None
    some_ND = vectors_ND[:: max(1, len(vectors_ND) // _SAMPLE)].astype(np.float64)
    _, axes_DD = np.linalg.eigh(some_ND.T @ some_ND)
    head_NE = vectors_ND @ axes_DD[:, -_HEAD:].astype(np.float32)
    left_N = np.einsum("nd,nd->n", vectors_ND, vectors_ND) - np.einsum("ne,ne->n", head_NE, head_NE)
    return head_NE, np.sqrt(np.maximum(left_N, 0))


class _Groups:
    """Sets that are joined where pairs connect them; every row knows the smallest row of its set."""

    def __init__(self, num: int) -> None:
        self._first_N = np.arange(num)

    def join(self, one_P: Members, other_P: Members) -> None:
        while True:
            one, other = self._first_N[one_P], self._first_N[other_P]
            apart = one != other
            if not apart.any():
                return
            low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
            np.minimum.at(self._first_N, high, low)
            while True:
                further_N = self._first_N[self._first_N]
                if np.array_equal(further_N, self._first_N):
                    break
                self._first_N = further_N

    def found(self) -> list[Members]:
        order_N = np.argsort(self._first_N, kind="stable")
        starts = np.flatnonzero(np.diff(self._first_N[order_N], prepend=-1))
        groups = [group for group in np.split(order_N, starts[1:]) if len(group) > 1]
        return sorted(groups, key=lambda group: (-len(group), int(group[0])))


@dataclass(frozen=True, kw_only=True)
class Outliers:
    """How alone each row is.

    Attributes:
        cosine_N: mean cosine with the nearest others.
        z_N: how far the angle of that cosine lies above the median of all, in standard deviations as the median
            deviation gives them. From about 3.5 on a row stands out (Iglewicz and Hoaglin, 1993, "How to Detect and
            Handle Outliers").
    """

    cosine_N: npt.NDArray[np.float32]
    z_N: npt.NDArray[np.float32]


def outliers(
    vectors_ND: Rows, *, num_nearest: int = 10, max_compared: int = _SAMPLE, seed: int = 0
) -> Outliers:
    """How alone each row is among the others.

    Args:
        vectors_ND: float32 [N, D], length 1.
        num_nearest: others whose cosines are averaged, fewer where there are fewer.
        max_compared: rows among which the nearest are looked for; of more, so many are drawn.
        seed: of the draw.
    """
    if num_nearest < 1:
        raise ValueError(f"num_nearest is {num_nearest}: it must be at least 1")
    num = len(vectors_ND)
    cosine_N = np.ones(num, np.float32)
    if num < 2:
        return Outliers(cosine_N=cosine_N, z_N=np.zeros(num, np.float32))
    chosen_M = np.arange(num)
    if num > max_compared:
        chosen_M = np.sort(np.random.default_rng(seed).choice(num, max(2, max_compared), replace=False))
    others_MD, nearest = vectors_ND[chosen_M], min(num_nearest, len(chosen_M) - 1)
    step = max(1, _PRODUCTS // len(chosen_M))
    for begin in range(0, num, step):
        rows_B = np.arange(begin, min(num, begin + step))
        cosine_BM = vectors_ND[rows_B] @ others_MD.T
        cosine_BM[rows_B[:, None] == chosen_M] = -np.inf  # itself
        best_BK = np.partition(cosine_BM, len(chosen_M) - nearest, axis=1)[:, -nearest:]
        cosine_N[rows_B] = best_BK.mean(axis=1)
    return Outliers(cosine_N=cosine_N, z_N=deviations(np.arccos(np.clip(cosine_N, -1, 1))))


def deviations(value_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Standard deviations above the median, by the median deviation; 0 where all are alike."""
    middle = np.median(value_N)
    deviation = _MAD_TO_SIGMA * float(np.median(np.abs(value_N - middle)))
    if deviation == 0:
        deviation = _MEAN_TO_SIGMA * float(np.mean(np.abs(value_N - middle)))  # most are alike
    return ((value_N - middle) / deviation).astype(np.float32) if deviation > 0 else np.zeros_like(value_N)


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Rows divided into clusters.

    Attributes:
        label_N: int64, each row's cluster; 0 is the largest.
        centre_KD: float32 [K, D], length 1.
        cosine_N: float32, each row's with its centre.
    """

    label_N: npt.NDArray[np.int64]
    centre_KD: Rows
    cosine_N: npt.NDArray[np.float32]

    def members(self, label: int) -> npt.NDArray[np.int64]:
        """Rows of a cluster, those nearest to its centre first."""
        rows = np.flatnonzero(self.label_N == label)
        return rows[np.argsort(-self.cosine_N[rows], kind="stable")]


def clusters(
    vectors_ND: Rows, num: int, *, seed: int = 0, num_starts: int = 4, max_rounds: int = 50
) -> Clusters:
    """Divide rows by direction: spherical k-means (Dhillon and Modha, 2001), begun as k-means++ does.

    Args:
        vectors_ND: float32 [N, D], length 1.
        num: clusters; never more than different rows.
        seed: of the beginnings.
        num_starts: beginnings, with a part of the rows where there are very many, of which the one that ends with
            the highest mean cosine counts.
        max_rounds: after which each ends where it is.
    """
    if num < 1:
        raise ValueError(f"num is {num}: there is at least 1 cluster")
    if not len(vectors_ND):
        raise ValueError("there are no rows to divide")
    generator = np.random.default_rng(seed)
    some_ND = vectors_ND
    if len(vectors_ND) > _STARTED:
        some_ND = vectors_ND[generator.choice(len(vectors_ND), _STARTED, replace=False)]
    found = []
    for _ in range(num_starts):
        centre_KD = _first_centres(some_ND, num, generator=generator)
        found.append(_improved(some_ND, centre_KD, max_rounds=max_rounds))
    best = max(found, key=lambda one: float(one.cosine_N.mean()))
    if some_ND is not vectors_ND:
        best = _improved(vectors_ND, best.centre_KD, max_rounds=max_rounds)
    return best


def _improved(vectors_ND: Rows, centre_KD: Rows, *, max_rounds: int) -> Clusters:
    """Centres moved to the middle of their rows until no row changes its cluster; the largest first."""
    label_N, cosine_N = _nearest(vectors_ND, centre_KD)
    for _ in range(max_rounds):
        centre_KD = _centres(vectors_ND, label_N, cosine_N, num=len(centre_KD))
        before_N = label_N
        label_N, cosine_N = _nearest(vectors_ND, centre_KD)
        if np.array_equal(before_N, label_N):
            break
    size_K = np.bincount(label_N, minlength=len(centre_KD))
    order_K = np.argsort(-size_K, kind="stable")[: np.count_nonzero(size_K)]
    place_K = np.empty(len(size_K), np.int64)
    place_K[order_K] = np.arange(len(order_K))
    return Clusters(label_N=place_K[label_N], centre_KD=centre_KD[order_K], cosine_N=cosine_N)


def _first_centres(vectors_ND: Rows, num: int, *, generator: np.random.Generator) -> Rows:
    """Rows drawn one after the other, the likelier the farther from those before; the best of a few draws each time."""
    chosen = [int(generator.integers(len(vectors_ND)))]
    distance_N = np.maximum(0, 1 - vectors_ND @ vectors_ND[chosen[0]]).astype(np.float64)
    num_draws = 2 + int(np.log(num))
    while len(chosen) < num and (total := distance_N.sum()) > 1e-6 * len(vectors_ND):
        draws = np.searchsorted(np.cumsum(distance_N), generator.random(num_draws) * total)
        draws = np.minimum(draws, len(vectors_ND) - 1)
        left_NB = np.minimum(distance_N[:, None], np.maximum(0, 1 - vectors_ND @ vectors_ND[draws].T))
        best = int(np.argmin(left_NB.sum(axis=0)))
        chosen.append(int(draws[best]))
        distance_N = left_NB[:, best]
    return vectors_ND[chosen]


def _nearest(vectors_ND: Rows, centre_KD: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    label_N = np.empty(len(vectors_ND), np.int64)
    cosine_N = np.empty(len(vectors_ND), np.float32)
    step = max(1, _PRODUCTS // len(centre_KD))
    for begin in range(0, len(vectors_ND), step):
        cosine_BK = vectors_ND[begin : begin + step] @ centre_KD.T
        best_B = cosine_BK.argmax(axis=1)
        label_N[begin : begin + step] = best_B
        cosine_N[begin : begin + step] = np.take_along_axis(cosine_BK, best_B[:, None], axis=1)[:, 0]
    return label_N, cosine_N


def _centres(
    vectors_ND: Rows, label_N: npt.NDArray[np.int64], cosine_N: npt.NDArray[np.float32], *, num: int
) -> Rows:
    """Mean directions; a cluster that lost all its rows begins again at the row farthest from its own centre."""
    sum_KD = np.zeros((num, vectors_ND.shape[1]), np.float64)
    step = max(1, _PRODUCTS // num)
    for begin in range(0, len(vectors_ND), step):
        some = slice(begin, begin + step)
        belongs_KB = np.equal.outer(np.arange(num), label_N[some]).astype(np.float32)
        sum_KD += belongs_KB @ vectors_ND[some]
    lost = np.setdiff1d(np.arange(num), label_N)
    sum_KD[lost] = vectors_ND[np.argsort(cosine_N, kind="stable")[: len(lost)]]
    length_K = np.linalg.norm(sum_KD, axis=1, keepdims=True)
    return (sum_KD / np.maximum(length_K, 1e-12)).astype(np.float32)
