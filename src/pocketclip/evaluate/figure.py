"""Accuracy against latency as a picture: the published models on a map, one's own point among them (Figure 1).

Where the names stand is the matter of `figure_labels.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketclip.data.publish import publish_file
from pocketclip.evaluate.figure_labels import Label, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
OWN = "your models"
_INK, _SOFT, _GRID, _OWN_TONE = "#16202a", "#5a6773", "#e4e8ec", "#d1006c"
_TONES = {
    "MobileCLIP2": ("#0b5fa5", "o"),
    "MobileCLIP": ("#5aa9e6", "o"),
    "SigLIP2": ("#b3541e", "s"),
    "SigLIP": ("#e39a4f", "s"),
    "DFN": ("#2b7a3d", "^"),
    "DataComp": ("#7fb069", "^"),
    "OpenAI": ("#6b4c9a", "D"),
    "LAION": ("#a98fd0", "D"),
    "TinyCLIP": ("#8a8f98", "v"),
    "ACED": ("#a63d57", "P"),
    "VeCLIP": ("#4d4d4d", "X"),
    "EVA02": ("#4d4d4d", "h"),
}
"""Family -> colour and marker; kin share a hue."""
_JOINED = ("MobileCLIP2", "MobileCLIP")
_SIZE = (10.0, 6.6)
_DPI = 160
_TICKS = (1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 1000, 2000, 5000)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model on the map.

    Attributes:
        name: beside the point.
        family: colours it; `OWN` highlights it.
        latency_ms: how long it takes, above 0.
        accuracy: in percent.
        spread_ms: ends of the latency's interval; None for none.
        estimated: the latency is not measured on the map's machine: drawn hollow.
    """

    name: str
    family: str
    latency_ms: float
    accuracy: float
    spread_ms: tuple[float, float] | None = None
    estimated: bool = False

    def __post_init__(self) -> None:
        if not (self.latency_ms > 0 and math.isfinite(self.latency_ms) and math.isfinite(self.accuracy)):
            raise ValueError(
                f"{self.name}: latency {self.latency_ms} ms and accuracy {self.accuracy}% are no place"
            )


def draw_map(
    points: Sequence[Point], outs: Sequence[Path], *, accuracy: str, latency: str, note: str = ""
) -> Figure:
    """Draw the map and publish it in as many formats as there are names.

    Args:
        points: models, at least one.
        outs: files to write, .png, .svg or .pdf; none only draws.
        accuracy: name of the vertical axis, with its unit.
        latency: name of the horizontal axis, with its unit; it is logarithmic.
        note: small print below, for instance the source.

    Returns:
        The figure.

    Raises:
        ImportError: the `figures` extra is not installed.
        ValueError: no point, or a suffix that is none of these.
        OSError: a file cannot be written.
    """
    if not points:
        raise ValueError("there is no model with both an accuracy and a latency to draw")
    check_suffixes(outs)
    figure = make_map(points, accuracy=accuracy, latency=latency, note=note)
    save_figure(figure, outs)
    return figure


def check_suffixes(outs: Sequence[Path]) -> None:
    """Refuses what cannot be drawn.

    Raises:
        ValueError: a suffix that is none of `SUFFIXES`.
    """
    for out in outs:
        if out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{out}: a figure's name ends in {', '.join(SUFFIXES)}")


def save_figure(figure: Figure, outs: Sequence[Path]) -> None:
    """Publish a figure, each file whole; equal figures give equal bytes."""
    from matplotlib import rc_context

    for out in outs:
        kind = out.suffix.lower().removeprefix(".")
        stamp: dict[str, Any] = {} if kind == "png" else {"Date" if kind == "svg" else "CreationDate": None}
        with rc_context({"svg.hashsalt": "pocketclip", "svg.fonttype": "none"}), publish_file(out) as file:
            figure.savefig(file, format=kind, dpi=_DPI, metadata=stamp)


def make_map(points: Sequence[Point], *, accuracy: str, latency: str, note: str = "") -> Figure:
    """The drawing by itself; see `draw_map`."""
    require_figures()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(
        {"font.family": ["DejaVu Sans"], "font.size": 9.5, "text.color": _INK, "axes.labelcolor": _INK}
    ):
        figure = Figure(figsize=_SIZE, dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.115, 0.905, 0.855))
        _frame(axes, points, accuracy=accuracy, latency=latency)
        _lines(axes, points)
        for family in _families(points):
            _dots(axes, [point for point in points if point.family == family], family=family)
        axes.legend(
            loc="lower right",
            frameon=True,
            framealpha=1.0,
            edgecolor=_GRID,
            fontsize=9,
            borderpad=0.8,
            ncols=2,
        )
        if note:
            figure.text(0.075, 0.018, note, fontsize=7.5, color=_SOFT)
        place_labels(axes, [_label(point) for point in points])
    return figure


def label_boxes(figure: Figure) -> Mapping[str, tuple[float, float, float, float]]:
    """Name -> left, bottom, right, top in pixels of every name on a map, as it is drawn."""
    axes = figure.axes[0]
    renderer = figure.canvas.get_renderer()  # ty: ignore[missing-attribute]
    return {text.get_text(): text.get_window_extent(renderer).extents for text in axes.texts}


def require_figures() -> None:
    """Raises ImportError when the `figures` extra is missing."""
    try:
        import adjustText
        import matplotlib
    except ImportError as error:
        raise ImportError(
            f"drawing needs {error.name}, which is not installed: pip install 'pocketclip[figures]'"
        ) from error
    assert adjustText.__name__
    assert matplotlib.__name__


def _frame(axes: Axes, points: Sequence[Point], *, accuracy: str, latency: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    times = [end for point in points for end in (point.spread_ms or (point.latency_ms,))]
    heights = [point.accuracy for point in points]
    room = max(1.0, 0.06 * (max(heights) - min(heights)))
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.22, max(times) * 1.35)
    axes.set_ylim(min(heights) - room, max(heights) + room)
    axes.xaxis.set_major_locator(FixedLocator([*(0.1 * tick for tick in _TICKS[:5]), *_TICKS]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(latency, fontsize=10.5, labelpad=6)
    axes.set_ylabel(accuracy, fontsize=10.5, labelpad=6)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_SOFT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GRID)


def _families(points: Sequence[Point]) -> list[str]:
    there = {point.family for point in points}
    known = [family for family in _TONES if family in there]
    return [*known, *sorted(there - {*known, OWN}), *([OWN] if OWN in there else [])]


def _look(family: str) -> tuple[str, str]:
    return (_OWN_TONE, "*") if family == OWN else _TONES.get(family, (_SOFT, "o"))


def _lines(axes: Axes, points: Sequence[Point]) -> None:
    """The models of a family that is a ladder of sizes are joined where each is better than the smaller ones."""
    for family in _JOINED:
        climb: list[Point] = []
        for point in sorted(
            (p for p in points if p.family == family), key=lambda p: (p.latency_ms, -p.accuracy)
        ):
            if not climb or point.accuracy > climb[-1].accuracy:
                climb.append(point)
        tone, _ = _look(family)
        axes.plot(
            [p.latency_ms for p in climb],
            [p.accuracy for p in climb],
            color=tone,
            linewidth=1.4,
            alpha=0.55,
            zorder=2,
        )


def _dots(axes: Axes, points: Sequence[Point], *, family: str) -> None:
    tone, marker = _look(family)
    is_own = family == OWN
    for point in points:
        if point.spread_ms is not None:
            axes.plot(
                point.spread_ms,
                [point.accuracy] * 2,
                color=tone,
                linewidth=1.6,
                zorder=4,
                solid_capstyle="butt",
            )
    for estimated in sorted({point.estimated for point in points}):
        some = [point for point in points if point.estimated == estimated]
        axes.scatter(
            [point.latency_ms for point in some],
            [point.accuracy for point in some],
            s=230 if is_own else 44,
            marker=marker,
            facecolors="white" if estimated else tone,
            edgecolors=tone if estimated else "white",
            linewidths=1.6 if estimated else 0.8,
            zorder=6 if is_own else 5,
            label=f"{family} (estimated latency)" if estimated else family,
        )


def _label(point: Point) -> Label:
    is_own = point.family == OWN
    return Label(
        text=point.name,
        x=point.latency_ms,
        y=point.accuracy,
        tone=_OWN_TONE if is_own else _darker(_look(point.family)[0]),
        strong=is_own,
    )


def _darker(tone: str) -> str:
    """A family's colour halfway to ink: readable as text."""
    from matplotlib.colors import to_hex, to_rgb

    (r, g, b), (ink_r, ink_g, ink_b) = to_rgb(tone), to_rgb(_INK)
    return to_hex(((r + ink_r) / 2, (g + ink_g) / 2, (b + ink_b) / 2))
