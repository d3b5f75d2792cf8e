"""Shares add up, follow the weights, and ask no pool for more than it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.filter.mix import shares


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    num=st.integers(1, 10_000),
)
def test_shares_add_up_and_are_within_one_of_their_weight(weights: list[float], num: int) -> None:
    wanted = shares(weights, left=[1] * len(weights), num=num, repeat=True)
    assert sum(wanted) == num
    for share, weight in zip(wanted, weights, strict=True):
        assert abs(share - num * weight / sum(weights)) <= 1 + 1e-6


def test_the_largest_mixture_uses_a_pool_up() -> None:
    assert shares([1, 3], left=[10, 300], num=None, repeat=False) == [10, 30]


def test_a_pool_that_is_too_small_is_told() -> None:
    with pytest.raises(ValueError, match="75 samples of pool 2, of which 10 are left"):
        shares([1, 3], left=[100, 10], num=100, repeat=False)
    with pytest.raises(ValueError, match="nothing of pool 1"):
        shares([1, 3], left=[0, 10], num=None, repeat=True)
