"""A bench as a picture: latencies with their spread side by side, or latency against resolution (Figure 3b)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketclip.bench.report import BenchReport, Row
from pocketclip.data.publish import publish_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
_INK, _SOFT, _GRID = "#16202a", "#5a6773", "#e4e8ec"
_TONES = ("#0b5fa5", "#d1006c", "#2b7a3d", "#b3541e", "#6b4c9a", "#5aa9e6", "#e39a4f", "#7fb069", "#8a8f98")
_DPI = 160


def check_plot(outs: Sequence[Path]) -> None:
    """Refuse before anything is measured what could not be drawn afterwards.

    Raises:
        ImportError: the `figures` extra is not installed.
        ValueError: a suffix that is none of `SUFFIXES`.
    """
    for out in outs:
        if out.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{out}: a figure's name ends in {', '.join(SUFFIXES)}")
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "drawing needs matplotlib, which is not installed: pip install 'pocketclip[figures]'"
        ) from error
    assert matplotlib.__name__


def plot_bench(report: BenchReport, outs: Sequence[Path]) -> Figure:
    """Draw a report and publish it in as many formats as there are names.

    Args:
        report: with more than one picture size it is drawn as latency against resolution.
        outs: files to write, .png, .svg or .pdf.

    Returns:
        The figure.

    Raises:
        ImportError: the `figures` extra is not installed.
        ValueError: a suffix that is none of these.
        OSError: a file cannot be written.
    """
    check_plot(outs)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with (
        rc_context({"font.family": ["DejaVu Sans"], "font.size": 9.5, "text.color": _INK}),
        rc_context({"axes.labelcolor": _INK, "svg.hashsalt": "pocketclip", "svg.fonttype": "none"}),
    ):
        figure = _sweep(report) if len(report.config.sizes) > 1 else _bars(report)
        FigureCanvasAgg(figure)
        for out in outs:
            kind = out.suffix.lower().removeprefix(".")
            stamp: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
            with publish_file(out) as file:
                figure.savefig(file, format=kind, dpi=_DPI, metadata=stamp)
    return figure


def _bars(report: BenchReport) -> Figure:
    """A panel each for tower, threads and batch size: a bar each for model, backend and precision."""
    from matplotlib.figure import Figure

    races: dict[tuple[object, ...], list[Row]] = {}
    for row in report.rows:
        races.setdefault((row.tower, row.threads, row.batch_size), []).append(row)
    heights = [0.9 + 0.27 * len(rows) for rows in races.values()]
    figure = Figure(figsize=(8.6, sum(heights) + 0.5), layout="constrained")
    panels = figure.subplots(len(races), 1, squeeze=False, height_ratios=heights)[:, 0]
    tones = _tones(report)
    for axes, rows in zip(panels, races.values(), strict=True):
        for place, row in enumerate(rows):
            axes.barh(place, row.latency_ms, height=0.66, color=tones[row.model], zorder=2)
            axes.plot([row.q1_ms, row.q3_ms], [place, place], color=_INK, linewidth=1.2, zorder=3)
            axes.annotate(
                f"{row.latency_ms:.3g} ms",
                (max(row.latency_ms, row.q3_ms), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=_SOFT,
            )
        first = rows[0]
        axes.set_yticks(range(len(rows)), [f"{row.model}, {row.backend} {row.precision}" for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.14 * max(max(row.latency_ms, row.q3_ms) for row in rows))
        threads = f"{first.threads} thread" + ("s" if first.threads > 1 else "")
        axes.set_title(
            f"{first.tower} tower, batch {first.batch_size}, {threads}",
            loc="left",
            fontsize=10,
            fontweight="bold",
        )
        _clean(axes, across="x")
    panels[-1].set_xlabel("ms for a batch: median and quartiles of all calls", color=_SOFT)
    figure.text(1, 0, report.machine.cpu, ha="right", va="bottom", fontsize=7, color=_SOFT)
    return figure


def _sweep(report: BenchReport) -> Figure:
    """Latency of the image tower against the side of the picture, both logarithmic: a line a model and backend."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[tuple[object, ...], list[Row]] = {}
    for row in report.rows:
        if row.image_px is not None:
            key = (row.model, row.backend, row.precision, row.threads, row.batch_size)
            lines.setdefault(key, []).append(row)
    many = [len({key[i] for key in lines}) > 1 for i in range(5)]
    tones, marks = _tones(report), dict(zip(report.config.backends, "os^Dv<>P*", strict=False))
    for key, rows in lines.items():
        words = (str(key[0]), str(key[1]), str(key[2]), f"{key[3]} threads", f"batch {key[4]}")
        name = ", ".join(word for i, word in enumerate(words) if i == 0 or many[i])
        sizes = [row.image_px or 0 for row in rows]
        axes.fill_between(
            sizes,
            [r.q1_ms for r in rows],
            [r.q3_ms for r in rows],
            color=tones[rows[0].model],
            alpha=0.15,
            lw=0,
        )
        axes.plot(
            sizes,
            [row.latency_ms for row in rows],
            color=tones[rows[0].model],
            marker=marks.get(str(key[1]), "o"),
            markersize=5,
            linewidth=1.8,
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(report.config.sizes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("side of the picture (px)")
    axes.set_ylabel("latency of the image tower (ms)")
    axes.legend(frameon=False, loc="upper left")
    _clean(axes, across="both")
    figure.text(1, 0, report.machine.cpu, ha="right", va="bottom", fontsize=7, color=_SOFT)
    return figure


def _tones(report: BenchReport) -> dict[str, str]:
    return {model: _TONES[number % len(_TONES)] for number, model in enumerate(report.models)}


def _clean(axes: Axes, *, across: str) -> None:
    axes.grid(axis=across, color=_GRID, linewidth=0.8)  # ty: ignore[invalid-argument-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both", colors=_SOFT)
    for spine in axes.spines.values():
        spine.set_visible(False)
