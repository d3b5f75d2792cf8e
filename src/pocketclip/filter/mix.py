"""Shares of several pools in a mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence


def shares(weights: Sequence[float], *, left: Sequence[int], num: int | None, repeat: bool) -> list[int]:
    """Samples to take from each pool, in proportion to the weights, the largest remainders rounded up.

    Args:
        weights: of the pools.
        left: samples that each has.
        num: of the mixture; None for the largest one that repeats nothing.
        repeat: whether a pool may be asked for more than it has.

    Raises:
        ValueError: a pool has nothing left, or fewer than its share.
    """
    total = sum(weights)
    for number, have in enumerate(left):
        if not have:
            raise ValueError(f"nothing of pool {number + 1} is left to mix")
    if num is None:
        num = math.floor(min(have * total / weight for have, weight in zip(left, weights, strict=True)))
    exact = [num * weight / total for weight in weights]
    wanted = [math.floor(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda number: (wanted[number] - exact[number], number))
    for number in by_rest[: num - sum(wanted)]:
        wanted[number] += 1
    for number, (share, have) in enumerate(zip(wanted, left, strict=True)):
        if share > have and not repeat:
            raise ValueError(
                f"the mixture takes {share} samples of pool {number + 1}, of which {have} are left: ask for fewer "
                "samples, or let it repeat them"
            )
    return wanted
