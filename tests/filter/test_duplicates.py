"""Near-duplicates are those that comparing all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest

from pocketclip.filter import duplicates as room
from pocketclip.filter.duplicates import band_masks, near_embeddings, near_hashes, num_rounds
from pocketclip.filter.phash import distance


def hashes_in_families(num: int, *, seed: int) -> np.ndarray:
    """Random hashes, half of them with a few bits of another one turned."""
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**63, num).astype(np.uint64)
    for row in range(num // 2, num):
        bits = generator.choice(64, generator.integers(0, 9), replace=False)
        turned = np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64)) if len(bits) else np.uint64(0)
        hashes[row] = hashes[generator.integers(0, row)] ^ turned
    return generator.permutation(hashes)


def by_all_pairs(near: np.ndarray, rank: np.ndarray) -> np.ndarray:
    return (near & (rank[None, :] < rank[:, None])).any(axis=1)


@pytest.mark.parametrize("bits", [0, 1, 3, 4, 7])
def test_hashes_are_compared_with_every_near_one(bits: int) -> None:
    hashes = hashes_in_families(900, seed=bits)
    rank = np.random.default_rng(7).permutation(900)
    near = distance(hashes[:, None], hashes[None, :]) <= bits
    assert (near_hashes(hashes, rank, bits=bits) == by_all_pairs(near, rank)).all()


def test_many_rows_that_are_alike_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_TOGETHER", 16)
    generator = np.random.default_rng(0)
    low = generator.integers(0, 2**10, 300).astype(np.uint64)  # all bands but one are equal
    hashes, rank = low, generator.permutation(300)
    near = distance(hashes[:, None], hashes[None, :]) <= 2
    # equal ones are told first and do not count for others: the best of them is as near
    assert (near_hashes(hashes, rank, bits=2) == by_all_pairs(near, rank)).all()


@pytest.mark.parametrize(("num", "bits"), [(10, 3), (10_000, 4), (100_000_000, 4), (100_000_000, 10)])
def test_a_mask_is_left_for_any_bits_that_differ(num: int, bits: int) -> None:
    masks = list(band_masks(num, bits=bits))
    generator = np.random.default_rng(0)
    for _ in range(200):
        turned = sum(1 << int(bit) for bit in generator.choice(64, bits, replace=False))
        assert any(int(mask) & turned == 0 for mask in masks)
    assert min(int(mask).bit_count() for mask in masks) >= min(np.log2(num) - 6, 50)


def test_embeddings_above_the_limit_are_found_and_below_are_not() -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((600, 32)).astype(np.float32)
    rows[300:] = rows[generator.integers(0, 300, 300)] + 0.15 * rows[300:]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rank = generator.permutation(600)
    wanted = by_all_pairs(rows @ rows.T >= 0.95, rank)
    found = near_embeddings(lambda some: rows[some], rank, width=32, cosine=0.95)
    assert not (found & ~wanted).any()
    assert found.sum() >= 0.98 * wanted.sum()
    assert wanted.sum() > 100


def test_rounds_grow_with_the_distance_that_counts_as_near() -> None:
    assert num_rounds(0.99, num_bits=16) < num_rounds(0.9, num_bits=16)


@pytest.mark.parametrize("bits", [-1, 17])
def test_limits_that_make_no_sense_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="0 to 16 bits"):
        near_hashes(np.zeros(2, np.uint64), np.arange(2), bits=bits)
    with pytest.raises(ValueError, match="0.5 to below 1"):
        near_embeddings(lambda some: some, np.arange(2), width=1, cosine=1.0)
