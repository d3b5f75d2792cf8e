"""The cut is that of sorting everything, whatever the values, their ties and the division into files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pocketclip.filter.select import Rows, Taker, top


def in_pieces(values: np.ndarray, ids: np.ndarray, cuts: Sequence[int]) -> list[Rows]:
    edges = [0, *sorted({min(cut, len(values)) for cut in cuts}), len(values)]
    return [Rows(values_N=values[a:b], ids_N=ids[a:b]) for a, b in pairwise(edges)]


def taken_by_cut(pieces: list[Rows], num: int) -> tuple[np.ndarray, int]:
    cut = top(lambda: pieces, num)
    taker = Taker(cut)
    return np.concatenate([taker.take(piece) for piece in pieces]), cut.num_taken


def taken_by_sorting(values: np.ndarray, ids: np.ndarray, num: int) -> np.ndarray:
    order = np.lexsort((np.arange(len(values)), ids, -values.astype(np.float64)))
    order = order[~np.isnan(values[order])]
    taken = np.zeros(len(values), bool)
    taken[order[:num]] = True
    return taken


FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.25, np.nan, np.inf, -np.inf, 1e-40, -1e-40])
MANY = st.floats(width=32)


@given(
    values=st.one_of(
        hnp.arrays(np.float32, st.integers(0, 40), elements=FEW),
        hnp.arrays(np.float32, st.integers(0, 40), elements=MANY),
    ),
    num=st.integers(0, 45),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    seed=st.integers(0, 3),
)
def test_takes_what_sorting_takes(values: np.ndarray, num: int, cuts: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    # few numbers of keys, so that rows are equal in both
    ids = generator.choice(np.array([0, 1, 2**16, 2**63, 2**64 - 1], np.uint64), len(values))
    taken, num_taken = taken_by_cut(in_pieces(values, ids, cuts), num)
    assert (taken == taken_by_sorting(values, ids, num)).all()
    assert num_taken == taken.sum()


def test_the_cut_of_many_values_is_that_of_sorting() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0.2, 0.05, 200_000).astype(np.float32).round(3)
    ids = generator.integers(0, 2**63, len(values)).astype(np.uint64)
    pieces = in_pieces(values, ids, [17, 60_000, 60_001])
    for num in (1, 40_000, 199_999, 200_000):
        taken, _ = taken_by_cut(pieces, num)
        assert (taken == taken_by_sorting(values, ids, num)).all()


def test_the_order_of_the_files_matters_to_nobody() -> None:
    generator = np.random.default_rng(1)
    values = generator.choice(np.float32([0.1, 0.2, 0.3]), 1000)
    ids = generator.permutation(1000).astype(np.uint64)
    chosen = []
    for order in (np.arange(1000), generator.permutation(1000)):
        taken, _ = taken_by_cut(in_pieces(values[order], ids[order], [100]), 333)
        chosen.append(set(ids[order][taken].tolist()))
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 333


def test_a_pool_without_values_gives_nothing() -> None:
    values = np.full(5, np.nan, np.float32)
    taken, num_taken = taken_by_cut([Rows(values_N=values, ids_N=np.zeros(5, np.uint64))], 3)
    assert not taken.any()
    assert num_taken == 0


@pytest.mark.parametrize("num", [0, 1])
def test_an_infinite_value_is_one_like_others(num: int) -> None:
    values = np.float32([np.inf, 0.0, np.inf])
    taken, _ = taken_by_cut([Rows(values_N=values, ids_N=np.uint64([5, 1, 3]))], num)
    assert taken.tolist() == [False, False, bool(num)]
