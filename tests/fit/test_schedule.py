"""The learning rate climbs in a straight line, falls by half a cosine, and never leaves its bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pocketclip.fit import cosine


@given(st.integers(1, 400), st.integers(0, 200), st.floats(1e-6, 1.0), st.floats(0.0, 1.0))
def test_up_then_down_within_bounds(num_steps, warmup_steps, lr_peak, floor_share):
    assume(warmup_steps < num_steps)
    lr_floor = lr_peak * floor_share
    rates = [
        cosine(step, num_steps=num_steps, warmup_steps=warmup_steps, lr_peak=lr_peak, lr_floor=lr_floor)
        for step in range(num_steps)
    ]
    up, down = rates[:warmup_steps], rates[warmup_steps:]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert rates[warmup_steps] == pytest.approx(lr_peak)
    assert all(0.0 < rate <= lr_peak * (1 + 1e-9) for rate in rates)
    assert all(rate >= lr_floor * (1 - 1e-9) for rate in down)
    if warmup_steps:
        steps = [after - before for before, after in zip([0.0, *up], up, strict=False)]
        assert steps == pytest.approx([lr_peak / warmup_steps] * warmup_steps)


@given(st.integers(0, 100), st.integers(0, 300))
def test_the_fall_is_half_a_cosine(warmup_steps, step):
    rate = cosine(
        warmup_steps + step,
        num_steps=warmup_steps + 300,
        warmup_steps=warmup_steps,
        lr_peak=3.0,
        lr_floor=1.0,
    )
    assert rate == pytest.approx(2.0 + math.cos(math.pi * step / 300))


def test_beyond_the_run_it_stays_at_the_floor():
    assert cosine(500, num_steps=100, warmup_steps=10, lr_peak=1.0, lr_floor=0.25) == 0.25


def test_a_run_that_is_all_warm_up_only_climbs():
    rates = [cosine(s, num_steps=4, warmup_steps=8, lr_peak=1.0, lr_floor=0.0) for s in range(4)]
    assert rates == [0.125, 0.25, 0.375, 0.5]
