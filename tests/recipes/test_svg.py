from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.recipes.svg import (
    Bar,
    Line,
    bar_chart,
    difference_chart,
    line_chart,
    running_mean,
    signed,
    tick_text,
    ticks,
)

finite = st.floats(-1e6, 1e6)


@given(finite, finite, st.integers(2, 9))
def test_ticks_enclose_the_range_in_round_even_steps(a, b, count):
    low, high = min(a, b), max(a, b)
    if high - low < 1e-6:
        high = low + 1
    marks = ticks(low, high, count=count)
    steps = np.diff(marks)
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert np.allclose(steps, steps[0], rtol=1e-4)
    assert 2 <= len(marks) <= count + 2
    assert any(
        math.isclose(steps[0], m * 10.0**p, rel_tol=1e-4) for m in (1, 2, 2.5, 5) for p in range(-8, 8)
    )


@pytest.mark.parametrize(
    ("marks", "texts"),
    [
        ([0, 100, 200], ["0", "100", "200"]),
        ([0, 2.5, 5], ["0.0", "2.5", "5.0"]),
        ([0, 0.25], ["0.00", "0.25"]),
        ([-1000, 0], ["−1,000", "0"]),
    ],
)
def test_ticks_show_the_decimals_they_differ_in(marks, texts):
    assert [tick_text(mark, marks) for mark in marks] == texts


def test_signed_numbers():
    assert [signed(v) for v in (3.84, -0.36, 0.04, -0.04)] == ["+3.8", "−0.4", "0.0", "0.0"]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.integers(1, 20))
def test_running_mean_stays_within_the_data_and_keeps_constants(values, window):
    smooth = running_mean(values, window=window)
    assert len(smooth) == len(values)
    assert min(values) - 1e-6 <= min(smooth) <= max(smooth) <= max(values) + 1e-6
    assert np.allclose(running_mean([values[0]] * len(values), window=window), values[0])


def test_running_mean_keeps_a_straight_line():
    assert running_mean(list(range(30)), window=7) == pytest.approx(list(range(30)))


def polyline(svg, kind="line"):
    root = ET.fromstring(svg)
    found = [e for e in root.iter("polyline") if e.get("class", "").startswith(kind)]
    return [[tuple(map(float, p.split(","))) for p in e.get("points").split()] for e in found]


def draw(lines):
    return line_chart(lines, alt="a & b", x_label="step", y_label="loss")


def test_lines_go_where_the_numbers_do():
    (points,) = polyline(draw([Line(label="m", tone="a", points=[(0, 5.0), (50, 1.0), (100, 3.0)])]))
    xs, ys = zip(*points, strict=True)
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2)
    assert ys[2] == pytest.approx((ys[0] + ys[1]) / 2)
    assert ys[1] > ys[0]  # SVG counts downwards


def test_what_is_not_finite_is_left_out():
    line = Line(label="m", tone="a", points=[(0, 5.0), (1, float("nan")), (2, float("inf")), (3, 1.0)])
    assert len(polyline(draw([line]))[0]) == 2
    assert "Nothing was recorded" in draw([Line(label="m", tone="a", points=[(0, float("nan"))])])
    assert "a &amp; b" in draw([])


def test_many_points_are_thinned_and_the_last_one_kept():
    points = [(i, 1 + i % 7) for i in range(10_001)]
    (shown,) = polyline(draw([Line(label="m", tone="a", points=points, raw=points)]), kind="raw")
    whole = polyline(draw([Line(label="m", tone="a", points=points[-1:])]))
    assert len(shown) <= 602
    assert shown[-1][0] == whole[0][0][0]


def test_bars_are_as_long_as_their_values_and_whiskers_span_intervals():
    bars = [Bar(label="a<b", tone="x", value=v, low=v - 2, high=v + 2) for v in (10.0, 20.0)]
    root = ET.fromstring(bar_chart(bars, limit=25, alt="bars", unit="%"))
    widths = [float(rect.get("width")) for rect in root.iter("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert "a<b" in [text.text for text in root.iter("text")]
    assert root.get("aria-label") == "bars"


def test_differences_fall_on_their_side_of_zero():
    bars = [Bar(label=str(v), tone="x", value=v, low=v - 1, high=v + 1) for v in (-3.0, 0.0, 4.0)]
    root = ET.fromstring(difference_chart(bars, alt="d", unit="points"))
    zero = float(next(line for line in root.iter("line") if line.get("class") == "zero").get("x1"))
    below, on, above = [float(circle.get("cx")) for circle in root.iter("circle")]
    assert below < zero < above
    assert on == pytest.approx(zero, abs=0.1)


def test_no_difference_at_all_can_be_drawn():
    bars = [Bar(label="none", tone="x", value=0.0, low=0.0, high=0.0)]
    ET.fromstring(difference_chart(bars, alt="d", unit="points"))
    ET.fromstring(bar_chart(bars, limit=0.0, alt="d", unit="%"))
