"""The largest K of any number of values, exactly, in memory that does not grow with them.

A radix select: float32 becomes an unsigned number of the same order, and a pass over the pool counts its upper 16 bits
in a table of 65,536; the bin in which rank K falls is counted again by its lower 16 bits. Rows of one value are told
apart by a 64-bit number of their key in the same way, and rows of one number by their place. So the outcome depends on
the pool alone, whatever its division into files.
"""

# Shape suffixes: N rows of a chunk.

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

_BITS = 16
_BINS = 1 << _BITS
_TOP = np.uint32(1 << 31)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a pool, which follow those of the chunk before.

    Attributes:
        values_N: float32; not a number for rows that cannot be taken.
        ids_N: uint64, of their keys.
    """

    values_N: np.ndarray
    ids_N: np.ndarray


Pool = Callable[[], Iterable[Rows]]
"""Goes through all rows of a pool, the same ones in the same order each time."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where the taken rows end.

    A row is taken if its value is above `value`; or equal to it and its number below `tie`; or both are equal and it is
    among the first `num_equal` such rows.

    Attributes:
        num_taken: rows that are taken.
        num_valued: rows of the pool that have a value.
        value: float32, the smallest that is taken; infinite where nothing is.
        tie: uint64 number of a key.
        num_equal: rows of this value and number that are taken.
    """

    num_taken: int
    num_valued: int
    value: float
    tie: int
    num_equal: int


class Taker:
    """Says chunk by chunk which rows a cut takes. Chunks come in the order of the pool."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._value = np.float32(cut.value)
        self._tie = np.uint64(cut.tie)
        self._left = cut.num_equal

    def take(self, rows: Rows) -> np.ndarray:
        """Whether each row is taken, bool [N]."""
        taken_N = rows.values_N > self._value
        at_N = np.flatnonzero(rows.values_N == self._value)
        if not len(at_N) or not self._cut.num_taken:
            return taken_N & (self._cut.num_taken > 0)
        ids = rows.ids_N[at_N]
        taken_N[at_N[ids < self._tie]] = True
        equal = at_N[ids == self._tie][: self._left]
        taken_N[equal] = True
        self._left -= len(equal)
        return taken_N


def top(pool: Pool, num: int) -> Cut:
    """The cut that takes the `num` largest values, or all where there are fewer.

    Of rows of one value those with the smallest number of their key go first, of these the first ones. The two zeros
    are one value.

    Args:
        pool: gone through up to seven times, two or three where few values are equal to the last one.
        num: how many, 0 or more.
    """
    counts = np.zeros(_BINS, np.int64)
    for rows in pool():
        counts += _counted(_ordered(rows.values_N) >> np.uint32(_BITS))
    num_valued = int(counts.sum())
    num = min(num, num_valued)
    if num == 0:
        return Cut(num_taken=0, num_valued=num_valued, value=float("inf"), tie=0, num_equal=0)
    upper, left = _bin_from_above(counts, num)
    counts = np.zeros(_BINS, np.int64)
    for rows in pool():
        ordered = _ordered(rows.values_N)
        counts += _counted(ordered[ordered >> np.uint32(_BITS) == upper] & np.uint32(_BINS - 1))
    lower, left = _bin_from_above(counts, left)
    value = _value(np.uint32(upper << _BITS | lower))
    if left == counts[lower]:  # every row of this value
        return Cut(num_taken=num, num_valued=num_valued, value=value, tie=2**64 - 1, num_equal=left)
    tie, num_equal = _first_ids(pool, np.float32(value), left)
    return Cut(num_taken=num, num_valued=num_valued, value=value, tie=tie, num_equal=num_equal)


def _first_ids(pool: Pool, value: np.float32, num: int) -> tuple[int, int]:
    """The `num`-th smallest number of the keys of a value's rows, and how many rows of that number are among them."""
    prefix = 0
    for shift in range(64 - _BITS, -1, -_BITS):
        counts = np.zeros(_BINS, np.int64)
        for rows in pool():
            ids = rows.ids_N[rows.values_N == value]
            if shift + _BITS < 64:
                ids = ids[ids >> np.uint64(shift + _BITS) == np.uint64(prefix)]
            counts += _counted(ids >> np.uint64(shift) & np.uint64(_BINS - 1))
        digit, num = _bin_from_below(counts, num)
        prefix = prefix << _BITS | digit
    return prefix, num


def _ordered(values_N: np.ndarray) -> np.ndarray:
    """uint32 in the order of the values; those that are no number are left out."""
    values_N = values_N[~np.isnan(values_N)] + np.float32(0.0)  # minus zero becomes zero
    bits_N = values_N.view(np.uint32)
    return np.where(bits_N & _TOP, ~bits_N, bits_N | _TOP)


def _value(ordered: np.uint32) -> float:
    bits = ordered ^ _TOP if ordered & _TOP else ~ordered
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def _counted(numbers: np.ndarray) -> np.ndarray:
    return np.bincount(numbers.astype(np.int64), minlength=_BINS)


def _bin_from_above(counts: np.ndarray, num: int) -> tuple[int, int]:
    """The bin in which the `num`-th largest is, and its rank within the bin, from 1."""
    digit, left = _bin_from_below(counts[::-1], num)
    return _BINS - 1 - digit, left


def _bin_from_below(counts: np.ndarray, num: int) -> tuple[int, int]:
    ends = np.cumsum(counts)
    digit = int(np.searchsorted(ends, num))
    return digit, num - int(ends[digit] - counts[digit])
