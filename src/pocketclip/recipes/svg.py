"""Small charts as inline SVG text: lines, bars with whiskers, differences around zero.

Colours and type come from the page's style sheet through classes (`tone-NAME`, `axis`, `grid`, `note`), so one
chart serves light, dark and print. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

MINUS = "\N{MINUS SIGN}"
_MOST_RAW_POINTS = 600


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of a line chart.

    Attributes:
        label: shown on hover and read aloud.
        tone: class suffix that colours it.
        points: (x, y) in order of x; a y that is not finite is left out.
        raw: fainter points behind it, what `points` was smoothed from.
        markers: draw a dot at each point.
    """

    label: str
    tone: str
    points: Sequence[tuple[float, float]]
    raw: Sequence[tuple[float, float]] = ()
    markers: bool = False


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One horizontal bar with its interval.

    Attributes:
        label: above the bar.
        tone: class suffix that colours it.
        value: its length, in the chart's unit.
        low: where the whisker begins.
        high: where it ends.
    """

    label: str
    tone: str
    value: float
    low: float
    high: float


def line_chart(
    lines: Sequence[Line],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    y_format: Callable[[float], str] | None = None,
    y_from_zero: bool = False,
    width: int = 390,
    height: int = 270,
) -> str:
    """An SVG line chart with axes, ticks and units.

    Args:
        lines: the series, the last one on top.
        alt: what a reader who does not see it should know.
        x_label: name and unit of x.
        y_label: name and unit of y.
        y_format: a tick's value -> its text; None for as many digits as the ticks differ in.
        y_from_zero: let the y axis begin at zero.
        width: of the view box.
        height: of the view box.
    """
    lines = [_finite(line) for line in lines]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    if not xs:
        return f'<p class="empty">Nothing was recorded for this chart ({escape(alt)}).</p>'
    frame = _Frame(
        x_ticks=ticks(min(0.0, *xs), max(xs), count=5),
        y_ticks=ticks(0.0 if y_from_zero else min(ys), max(ys), count=5),
        x_end=max(xs),
        right=width - 12,
        bottom=height - 40,
    )
    y_text = y_format or (lambda value: tick_text(value, frame.y_ticks))
    parts = [
        f'<text class="note" x="0" y="12">{escape(y_label)}</text>',
        *_axes(frame, y_text=y_text),
        f'<text class="note" x="{frame.right}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>',
    ]
    parts += [_polyline(frame, line.raw, kind=f"raw tone-{line.tone}") for line in lines if line.raw]
    for line in (line for line in lines if line.points):
        parts.append(_polyline(frame, line.points, kind=f"line tone-{line.tone}", title=line.label))
        parts += [
            f'<circle class="dot tone-{line.tone}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3">'
            f"{_title(f'{line.label}: {y_text(y)} at {x:,.0f}')}</circle>"
            for x, y in (line.points if line.markers else ())
        ]
    return _svg(parts, width=width, height=height, alt=alt)


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where numbers fall in the view box of a line chart."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    x_end: float
    right: float
    bottom: float
    left: float = 46
    top: float = 26

    def x(self, value: float) -> float:
        span = max(self.x_end - self.x_ticks[0], 1e-9)
        return self.left + (self.right - self.left) * (value - self.x_ticks[0]) / span

    def y(self, value: float) -> float:
        """Raw points beyond the axis are held at its edge."""
        share = (value - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
        return self.bottom - (self.bottom - self.top) * min(1.03, max(0.0, share))


def _axes(frame: _Frame, *, y_text: Callable[[float], str]) -> list[str]:
    left, right, bottom = frame.left, frame.right, frame.bottom
    parts = []
    for tick in frame.y_ticks:
        y = f"{frame.y(tick):.1f}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{y}" dy=".34em" text-anchor="end">{escape(y_text(tick))}</text>'
        )
    parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    for tick in (tick for tick in frame.x_ticks if tick <= frame.x_end):
        x = f"{frame.x(tick):.1f}"
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>')
        text = escape(tick_text(tick, frame.x_ticks))
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    return parts


def _polyline(frame: _Frame, points: Sequence[tuple[float, float]], *, kind: str, title: str = "") -> str:
    shown = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in _thinned(points))
    return f'<polyline class="{kind}" points="{shown}">{_title(title) if title else ""}</polyline>'


def bar_chart(bars: Sequence[Bar], *, limit: float, alt: str, unit: str, width: int = 250) -> str:
    """Horizontal bars from zero, labels above them, whiskers for intervals.

    Args:
        bars: from top to bottom.
        limit: where the axis ends at least; give charts that stand side by side the same.
        alt: what a reader who does not see it should know.
        unit: after the last tick and each value.
        width: of the view box.
    """
    marks = ticks(0.0, max(limit, 1e-9), count=4)
    row, thick = 44, 16
    right, bottom = width - 46, row * len(bars) + 4
    scale = right / marks[-1]
    parts = []
    for mark in marks:
        x = f"{max(0.5, mark * scale):.1f}"
        parts.append(f'<line class="{"grid" if mark else "axis"}" x1="{x}" x2="{x}" y1="18" y2="{bottom}"/>')
        anchor = "middle" if mark else "start"
        text = tick_text(mark, marks) + (unit if mark == marks[-1] else "")
        parts.append(
            f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="{anchor}">{escape(text)}</text>'
        )
    for number, bar in enumerate(bars):
        y = number * row + 20
        x, low, high = (scale * v for v in (bar.value, bar.low, bar.high))
        parts.append(f'<text class="label" x="0" y="{y - 6}">{escape(bar.label)}</text>')
        text = f"{bar.label}: {bar.value:.1f}{unit}, interval {bar.low:.1f} to {bar.high:.1f}"
        parts.append(
            f'<rect class="bar tone-{bar.tone}" x="0" y="{y}" width="{x:.1f}" height="{thick}">{_title(text)}</rect>'
        )
        parts.append(_whisker(low, high, y + thick / 2, cap=4))
        parts.append(
            f'<text class="value" x="{max(x, high) + 8:.1f}" y="{y + thick / 2}" dy=".36em">{bar.value:.1f}</text>'
        )
    return _svg(parts, width=width, height=bottom + 22, alt=alt)


def difference_chart(bars: Sequence[Bar], *, alt: str, unit: str, width: int = 400) -> str:
    """Points with whiskers on both sides of a line at zero, a row each.

    Args:
        bars: from top to bottom; values may be negative.
        alt: what a reader who does not see it should know.
        unit: of the axis.
        width: of the view box.
    """
    low = min(0.0, *(bar.low for bar in bars))
    high = max(0.0, *(bar.high for bar in bars))
    marks = ticks(low, high if high > low else 1.0, count=5)
    row, left, right = 40, 98, width - 56
    bottom = row * len(bars) + 8

    def place(value: float) -> float:
        return left + (right - left) * (value - marks[0]) / (marks[-1] - marks[0])

    parts = []
    for mark in marks:
        x = f"{place(mark):.1f}"
        parts.append(f'<line class="{"grid" if mark else "zero"}" x1="{x}" x2="{x}" y1="4" y2="{bottom}"/>')
        text = signed(mark, digits=_digits(marks))
        parts.append(
            f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>'
        )
    for number, bar in enumerate(bars):
        y = number * row + row / 2 + 4
        parts.append(f'<text class="label" x="0" y="{y}" dy=".36em">{escape(bar.label)}</text>')
        parts.append(_whisker(place(bar.low), place(bar.high), y, cap=6, kind=f"whisker tone-{bar.tone}"))
        text = f"{bar.label}: {signed(bar.value)}, interval {signed(bar.low)} to {signed(bar.high)} {unit}"
        parts.append(
            f'<circle class="dot tone-{bar.tone}" cx="{place(bar.value):.1f}" cy="{y}" r="6">{_title(text)}</circle>'
        )
        parts.append(
            f'<text class="value" x="{width}" y="{y}" dy=".36em" text-anchor="end">{escape(signed(bar.value))}</text>'
        )
    parts.append(f'<text class="note" x="{left}" y="{bottom + 34}">{escape(unit)}</text>')
    return _svg(parts, width=width, height=bottom + 40, alt=alt)


def signed(value: float, *, digits: int = 1) -> str:
    """A number with its sign, "+3.8" or "−0.4"; what rounds to zero has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def ticks(low: float, high: float, *, count: int) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that enclose [low, high], about `count` of them."""
    assert math.isfinite(low + high), (low, high)
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def tick_text(value: float, marks: Sequence[float]) -> str:
    """A tick's number with as many decimals as its axis needs."""
    text = f"{abs(value):,.{_digits(marks)}f}"
    return MINUS + text if value < 0 else text


def running_mean(values: Sequence[float], *, window: int) -> list[float]:
    """Centred mean over `window` values, fewer at the ends; as long as `values`."""
    assert window >= 1
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    rows = np.arange(len(values))
    half = np.minimum(window // 2, np.minimum(rows, len(values) - 1 - rows))
    return ((sums[rows + half + 1] - sums[rows - half]) / (2 * half + 1)).tolist()


def _digits(marks: Sequence[float]) -> int:
    step = min((b - a for a, b in pairwise(marks)), default=1.0)
    return next((d for d in range(7) if abs(round(step, d) - step) < 1e-9 * max(1, step)), 7)


def _finite(line: Line) -> Line:
    points, raw = (
        [p for p in row if math.isfinite(p[0]) and math.isfinite(p[1])] for row in (line.points, line.raw)
    )
    return Line(label=line.label, tone=line.tone, points=points, raw=raw, markers=line.markers)


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = math.ceil(len(points) / _MOST_RAW_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def _whisker(low: float, high: float, y: float, *, cap: float, kind: str = "whisker") -> str:
    path = (
        f"M{low:.1f},{y - cap:.1f}v{2 * cap}M{low:.1f},{y:.1f}H{high:.1f}M{high:.1f},{y - cap:.1f}v{2 * cap}"
    )
    return f'<path class="halo" d="{path}"/><path class="{kind}" d="{path}"/>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _svg(parts: Sequence[str], *, width: float, height: float, alt: str) -> str:
    label = escape(alt)
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">'
    return head + "".join(parts) + "</svg>"
