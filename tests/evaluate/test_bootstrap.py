from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.evaluate.bootstrap import Bootstrap, bootstrap_difference, bootstrap_interval

values = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(values, st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_value_is_the_mean_and_the_interval_lies_within_the_data(values, seed):
    interval = bootstrap_interval(values, seed=seed, resamples=50)
    assert interval.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-6 <= interval.low <= interval.high <= max(values) + 1e-6


@given(values)
@settings(max_examples=20, deadline=None)
def test_a_higher_level_gives_a_wider_interval(values):
    narrow, wide = (bootstrap_interval(values, seed=1, resamples=100, level=level) for level in (0.5, 0.9))
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


def test_same_seed_same_interval():
    hits = np.random.default_rng(0).integers(0, 2, 300)
    assert bootstrap_interval(hits, seed=4) == bootstrap_interval(hits, seed=4)
    assert bootstrap_interval(hits, seed=4) != bootstrap_interval(hits, seed=5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_width_is_that_of_the_normal_approximation(share):
    """Reference: the standard error of a share p of n independent hits is sqrt(p (1 - p) / n)."""
    hits = np.arange(1000) < 1000 * share
    interval = bootstrap_interval(hits, seed=0, resamples=4000)
    error = 1.96 * math.sqrt(share * (1 - share) / 1000)
    assert interval.half_width == pytest.approx(error, rel=0.06)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        interval = bootstrap_interval(rng.random(150) < 0.3, seed=int(rng.integers(1e9)), resamples=300)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_queries_of_one_group_count_once():
    """Each value written down four times, in one group, tells no more than the value once."""
    once = np.random.default_rng(0).random(200)
    four = np.repeat(once, 4)
    groups = np.repeat(np.arange(200), 4)
    single = bootstrap_interval(once, seed=0)
    assert bootstrap_interval(four, seed=0, groups=groups).half_width == pytest.approx(single.half_width)
    assert bootstrap_interval(four, seed=0).half_width < 0.6 * single.half_width


def test_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(3)
    easy = rng.random(500)
    worse, better = easy < 0.4, easy < 0.45
    paired = bootstrap_difference(better, worse, seed=0)
    assert paired.value == pytest.approx(better.mean() - worse.mean())
    assert paired.low > 0
    assert bootstrap_interval(better, seed=0).low < bootstrap_interval(worse, seed=0).high


@given(values)
@settings(max_examples=20, deadline=None)
def test_a_model_does_not_differ_from_itself(values):
    interval = bootstrap_difference(values, values, seed=0, resamples=20)
    assert (interval.low, interval.value, interval.high) == (0, 0, 0)


@given(st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_difference_is_antisymmetric(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.random(30), rng.random(30)
    forth = bootstrap_difference(one, other, seed=1, resamples=100)
    back = bootstrap_difference(other, one, seed=1, resamples=100)
    assert forth.low == pytest.approx(-back.high, abs=1e-6)
    assert forth.value == pytest.approx(-back.value)


def test_two_parts_average_their_means():
    bootstrap = Bootstrap(num_groups=3, seed=0, resamples=100)
    interval = bootstrap.interval([1, 1, 0], [0, 1], groups=[[0, 1, 2], [0, 1]])
    assert interval.value == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_many_groups_are_drawn_in_blocks_without_changing_the_law(monkeypatch):
    hits = np.arange(100) < 30
    monkeypatch.setattr("pocketclip.evaluate.bootstrap._DRAWS_AT_A_TIME", 250)
    interval = bootstrap_interval(hits, seed=0, resamples=2000)
    assert interval.half_width == pytest.approx(1.96 * math.sqrt(0.3 * 0.7 / 100), rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": []}, "at least one value"),
        ({"values": [1], "level": 1.0}, "level"),
        ({"values": [1], "resamples": 0}, "resamples"),
        ({"values": [1, 0], "groups": [0]}, "lengths of values and groups"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(seed=0, **arguments)
    with pytest.raises(ValueError, match="same queries"):
        bootstrap_difference([1, 0], [1], seed=0)
