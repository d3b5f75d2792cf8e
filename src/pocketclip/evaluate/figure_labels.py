"""Names beside the points of a map, never on one another: adjustText proposes, what still touches moves on.

Boxes are left, bottom, right, top in pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

Box = tuple[float, float, float, float]
_DOT_POINTS = 3.6  # half a marker, in points
_STRONG_DOT_POINTS = 8.0
_GAP_POINTS = 1.2
_LEADER_POINTS = 7.0  # names further away than this get a line to their point
_CROSSING = 9.0  # what it costs to lie on a line, as points further from the own point
_DOUBT = 14.0  # what it costs to be nearer to another point
_ITERATIONS = 60  # of adjustText, which is slow on crowded maps
_RINGS_POINTS = (1.5, 4.0, 8.0, 13.0, 19.0, 26.0, 34.0, 44.0, 56.0, 70.0)


@dataclass(frozen=True, kw_only=True)
class Label:
    """A name and the point it belongs to.

    Attributes:
        text: the name.
        x: of the point, in the axes' unit.
        y: of the point.
        tone: colour of the name.
        strong: large and bold; placed before all others.
    """

    text: str
    x: float
    y: float
    tone: str
    strong: bool = False


def place_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Writes every name beside its point, clear of names, points, the legend and the frame where there is room."""
    from adjustText import adjust_text

    texts = [_write(axes, label) for label in labels]
    adjust_text(
        texts,
        [label.x for label in labels],
        [label.y for label in labels],
        ax=axes,
        ensure_inside_axes=True,
        iter_lim=_ITERATIONS,
        expand=(1.05, 1.2),
    )
    _settle(axes, texts, labels)


def overlaps(boxes: Sequence[Box]) -> list[tuple[int, int]]:
    """The pairs of boxes that share more than an edge."""
    pairs = itertools.combinations(range(len(boxes)), 2)
    return [(i, j) for i, j in pairs if _touch(boxes[i], boxes[j], gap=0.0)]


def _write(axes: Axes, label: Label) -> Text:
    return axes.text(
        label.x,
        label.y,
        label.text,
        fontsize=10.5 if label.strong else 7.8,
        fontweight="bold" if label.strong else "normal",
        color=label.tone,
        zorder=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.4},
    )


def _settle(axes: Axes, texts: Sequence[Text], labels: Sequence[Label]) -> None:
    """Puts each name on the best free place: adjustText's own, or one on the rings around its point."""
    figure = axes.figure
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # ty: ignore[missing-attribute]
    point_px = figure.dpi / 72
    dots = [_dot(axes, label, point_px=point_px) for label in labels]
    strokes = _strokes(axes, step=4 * point_px)
    legend = axes.get_legend()
    taken: list[Box] = [] if legend is None else [_extents(legend.get_window_extent(renderer))]
    frame = _extents(axes.get_window_extent(renderer))
    proposed = [_extents(text.get_window_extent(renderer)) for text in texts]
    crowd = [sum(_touch(box, other, gap=20 * point_px) for other in dots) for box in proposed]
    for i in sorted(range(len(texts)), key=lambda i: (not labels[i].strong, -crowd[i], labels[i].x)):
        places = [proposed[i], *_around(dots[i], proposed[i], point_px=point_px)]
        costs = [
            _cost(place, dots=dots, own=i, taken=taken, frame=frame, point_px=point_px)
            + _CROSSING * _crosses(place, strokes)
            for place in places
        ]
        best = places[int(np.argmin(costs))]
        taken.append(best)
        _move(axes, texts[i], best)
        _leader(axes, dots[i], best, point_px=point_px)


def _cost(
    place: Box, *, dots: Sequence[Box], own: int, taken: Sequence[Box], frame: Box, point_px: float
) -> float:
    """How bad a place is: overlaps are worst, then what is outside, then the way to the point."""
    gap = _GAP_POINTS * point_px
    names = sum(_touch(place, other, gap=gap) for other in taken)
    points = sum(_touch(place, dot, gap=0.4 * gap) for dot in dots)
    outside = not (
        place[0] >= frame[0] and place[1] >= frame[1] and place[2] <= frame[2] and place[3] <= frame[3]
    )
    near = min((_distance(place, dot) for i, dot in enumerate(dots) if i != own), default=math.inf)
    far = _distance(place, dots[own]) / point_px
    doubt = _DOUBT if near < _distance(place, dots[own]) + gap else 0.0  # it seems to belong to another point
    return 1e6 * names + 1e4 * points + 1e5 * outside + far + doubt


def _strokes(axes: Axes, *, step: float) -> NDArray[np.float64]:
    """[N, 2] places in pixels along all lines of the map."""
    found = [np.empty((0, 2))]
    for line in axes.lines:
        ends = axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
        for start, end in itertools.pairwise(ends):
            share = np.linspace(0, 1, 2 + int(np.hypot(*(end - start)) / step))[:, None]
            found.append(start + share * (end - start))
    return np.concatenate(found)


def _crosses(place: Box, strokes_N2: NDArray[np.float64]) -> bool:
    x, y = strokes_N2[:, 0], strokes_N2[:, 1]
    return bool(np.any((x > place[0]) & (x < place[2]) & (y > place[1]) & (y < place[3])))


def _around(dot: Box, box: Box, *, point_px: float) -> Iterator[Box]:
    """Places of the box on rings around a point, right of it first."""
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = (dot[0] + dot[2]) / 2, (dot[1] + dot[3]) / 2
    for ring in _RINGS_POINTS:
        reach = (dot[2] - dot[0]) / 2 + ring * point_px
        for angle in np.linspace(0, 2 * math.pi, 24, endpoint=False):
            dx, dy = math.cos(angle), math.sin(angle)
            left = x + reach * dx - width * (1 - dx) / 2
            bottom = y + reach * dy - height * (1 - dy) / 2
            yield left, bottom, left + width, bottom + height


def _move(axes: Axes, text: Text, box: Box) -> None:
    text.set_horizontalalignment("left")
    text.set_verticalalignment("bottom")
    x, y = axes.transData.inverted().transform((box[0], box[1]))
    text.set_position((float(x), float(y)))


def _leader(axes: Axes, dot: Box, box: Box, *, point_px: float) -> None:
    """A thin line from a name that had to move away to its point."""
    if _distance(dot, box) < _LEADER_POINTS * point_px:
        return
    x, y = (dot[0] + dot[2]) / 2, (dot[1] + dot[3]) / 2
    end = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
    back = axes.transData.inverted().transform
    (x0, y0), (x1, y1) = back((x, y)), back(end)
    axes.plot([x0, x1], [y0, y1], color="#9aa5b1", linewidth=0.6, zorder=3)


def _dot(axes: Axes, label: Label, *, point_px: float) -> Box:
    x, y = axes.transData.transform((label.x, label.y))
    half = (_STRONG_DOT_POINTS if label.strong else _DOT_POINTS) * point_px
    return x - half, y - half, x + half, y + half


def _extents(box: object) -> Box:
    left, bottom, right, top = box.extents  # ty: ignore[missing-attribute]
    return float(left), float(bottom), float(right), float(top)


def _touch(one: Box, other: Box, *, gap: float) -> bool:
    return (
        one[0] < other[2] + gap
        and other[0] < one[2] + gap
        and one[1] < other[3] + gap
        and other[1] < one[3] + gap
    )


def _distance(one: Box, other: Box) -> float:
    """Of the nearest edges; 0 where they touch."""
    dx = max(0.0, one[0] - other[2], other[0] - one[2])
    dy = max(0.0, one[1] - other[3], other[1] - one[3])
    return math.hypot(dx, dy)
