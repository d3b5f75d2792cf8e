"""Near-duplicates of a pool: by perceptual hash, exactly, or by embedding, nearly all; never all pairs.

A row goes when a better one is near it; better is what has the higher score, then the smaller number of its key, then
the earlier place. So the outcome does not depend on the order in which pairs are found.

Hashes. Two hashes that differ in at most d bits, cut into d + r bands, are equal in r bands at least (a bit can spoil
one band only). For every choice of r bands rows are sorted by those bands' bits, and only rows that are equal there are
compared. r is chosen so that few rows are.

Embeddings. Rows are sorted by the signs of b random projections, again and again with others; two rows at angle a have
one sign with probability 1 - a / pi each time, and the number of rounds makes 99% of the pairs at the limit meet.
"""

# Shape suffixes: N rows, K rows in order, P pairs, U different rows, B rows asked for, D dimensions of an embedding.

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

import numpy as np

from pocketclip.filter.phash import distance

HASH_BITS = 64
_TOGETHER = 1 << 16  # pairs that are compared at once
_FOUND = 0.99
_MOST_ROUNDS = 64

Near = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Whether each of some pairs is near, bool [P], by the row numbers of one and of the other."""


def near_hashes(hash_N: np.ndarray, rank_N: np.ndarray, *, bits: int) -> np.ndarray:
    """Rows near which a better one is.

    Args:
        hash_N: uint64.
        rank_N: int64, each once; the smaller, the better.
        bits: in which near hashes differ at most, 0 to 16.

    Returns:
        bool [N].
    """
    if not 0 <= bits <= 16:
        raise ValueError(f"hashes are near by 0 to 16 bits, got {bits}")
    dropped_N = np.zeros(len(hash_N), bool)
    order_N = np.lexsort((rank_N, hash_N))  # equal ones first: there may be very many
    dropped_N[order_N[1:][hash_N[order_N[1:]] == hash_N[order_N[:-1]]]] = True
    left = np.flatnonzero(~dropped_N)
    if bits == 0 or len(left) < 2:
        return dropped_N

    def near(one_P: np.ndarray, other_P: np.ndarray) -> np.ndarray:
        return distance(hash_N[one_P], hash_N[other_P]) <= bits

    for mask in band_masks(len(left), bits=bits):
        _drop(left[np.lexsort((rank_N[left], hash_N[left] & mask))], hash_N & mask, dropped_N, near)
    return dropped_N


def near_embeddings(
    rows_of: Callable[[np.ndarray], np.ndarray],
    rank_N: np.ndarray,
    *,
    width: int,
    cosine: float,
    seed: int = 0,
) -> np.ndarray:
    """Rows near which a better one is; misses about one in a hundred of the pairs at the limit, and hardly any above.

    Args:
        rows_of: float32 rows [B, D] of length 1 by row numbers [B] in rising order.
        rank_N: int64, each once; the smaller, the better.
        width: D.
        cosine: of near rows, at least.
        seed: of the projections.

    Returns:
        bool [N].
    """
    if not 0.5 <= cosine < 1:
        raise ValueError(f"embeddings are near from a cosine of 0.5 to below 1 on, got {cosine}")
    num = len(rank_N)
    dropped_N = np.zeros(num, bool)
    num_bits = int(np.clip(round(math.log2(max(num, 2))) - 3, 4, 24))
    generator = np.random.default_rng(seed)

    def near(one_P: np.ndarray, other_P: np.ndarray) -> np.ndarray:
        rows, places = np.unique(np.concatenate([one_P, other_P]), return_inverse=True)
        rows_UD = rows_of(rows)
        one_PD, other_PD = rows_UD[places[: len(one_P)]], rows_UD[places[len(one_P) :]]
        return np.einsum("pd,pd->p", one_PD, other_PD) >= cosine

    for _ in range(num_rounds(cosine, num_bits=num_bits)):
        directions_DK = generator.standard_normal((width, num_bits)).astype(np.float32)
        sign_N = np.empty(num, np.uint64)
        for start in range(0, num, 65_536):
            rows = np.arange(start, min(num, start + 65_536))
            signs = (rows_of(rows) @ directions_DK > 0) @ (1 << np.arange(num_bits))
            sign_N[rows] = signs.astype(np.uint64)
        _drop(np.lexsort((rank_N, sign_N)), sign_N, dropped_N, near)
    return dropped_N


def num_rounds(cosine: float, *, num_bits: int) -> int:
    """Rounds after which a pair of that cosine has met with a probability of 99%, or the most that are made."""
    meets = (1 - math.acos(cosine) / math.pi) ** num_bits
    return min(_MOST_ROUNDS, max(1, math.ceil(math.log(1 - _FOUND) / math.log1p(-meets))))


def band_masks(num: int, *, bits: int) -> Iterator[np.uint64]:
    """Masks of 64 bits, by one of which at least any two hashes are equal that differ in at most `bits`.

    Args:
        num: hashes; the more, the more bits each mask has.
        bits: in which two may differ.
    """
    intact = next(
        (
            intact
            for intact in range(1, HASH_BITS - bits)
            if HASH_BITS * intact / (bits + intact) >= math.log2(max(num, 2)) - 4
        ),
        1,
    )
    edges = np.linspace(0, HASH_BITS, bits + intact + 1).round().astype(int)
    bands = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(edges.tolist())]
    for chosen in combinations(bands, intact):
        yield np.uint64(sum(chosen))


def _drop(order_K: np.ndarray, value_N: np.ndarray, dropped_N: np.ndarray, near: Near) -> None:
    """Drops rows that are near a better one of the same value.

    Args:
        order_K: row numbers, those of one value side by side, the best first.
        value_N: of every row.
        dropped_N: changed in place.
        near: compares pairs.
    """
    value_K = value_N[order_K]
    first_P = np.arange(len(order_K))
    apart = 0
    while len(
        first_P
    ):  # each row with the one behind it, with the one behind that, while they are of one value
        apart += 1
        first_P = first_P[: np.searchsorted(first_P, len(order_K) - apart)]
        first_P = first_P[value_K[first_P] == value_K[first_P + apart]]
        open_P = first_P[~dropped_N[order_K[first_P + apart]]]
        for start in range(0, len(open_P), _TOGETHER):
            pairs = open_P[start : start + _TOGETHER]
            worse = order_K[pairs + apart]
            dropped_N[worse[near(order_K[pairs], worse)]] = True
