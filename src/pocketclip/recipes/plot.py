"""Curves of runs side by side, out of their metrics.jsonl: losses, evaluations, learning rate, speed.

Runs may be short, under way, damaged at their last line, or have recorded values that are not finite: what is there is
drawn, and what is not finite is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketclip.data.publish import publish_file
from pocketclip.fit import read_journal
from pocketclip.recipes.plot_page import Panel, Row, as_html, as_png, as_svg
from pocketclip.recipes.svg import Line, running_mean
from pocketclip.train import METRICS_FILE

Curve = list[tuple[float, float]]  # (step, value), values finite

SUFFIXES = (".svg", ".png", ".html")
_OPTIMISATION = ("lr", "grad_norm", "logit_scale", "skipped_steps")
_SPEED = ("samples_per_s", "data_wait_share", "memory_gb")
_UNITS = {"loss": "nats", "samples_per_s": "samples a second", "memory_gb": "GB"}
_LEAST_SMOOTHED = 40  # points below which a curve is drawn as it is
_MOST_MARKED = 25  # points above which they get no dots


@dataclass(frozen=True, kw_only=True)
class RunCurves:
    """What a run has recorded.

    Attributes:
        name: of the run.
        steps: the last step that it recorded; 0 for none yet.
        curves: metric -> its points in order of the steps.
        not_finite: how many recorded values were NaN or infinite.
    """

    name: str
    steps: int
    curves: Mapping[str, Curve]
    not_finite: int

    def last(self, metric: str) -> float | None:
        """The mean of the last twentieth of a metric, or of its last value; None where it has none."""
        curve = self.curves.get(metric)
        if not curve:
            return None
        tail = [value for _, value in curve[-max(1, len(curve) // 20) :]]
        return sum(tail) / len(tail)

    def best(self, metric: str) -> float | None:
        """The highest value of a metric; None where it has none."""
        curve = self.curves.get(metric)
        return max(value for _, value in curve) if curve else None


def plot(runs: Mapping[str, Path], out: Path) -> tuple[RunCurves, ...]:
    """Draws the curves of runs into one file.

    Args:
        runs: name -> a run's folder, or its metrics.jsonl.
        out: a .svg, .png or .html file.

    Raises:
        ValueError: another suffix; no run, or no run with a record; a metrics.jsonl that is damaged.
        FileNotFoundError: a run without metrics.
        ImportError: a .png, and resvg is not installed.
        PublishError: `out` cannot be written.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out} ends in none of {', '.join(SUFFIXES)}: choose one of these")
    found = tuple(read_run(name, path) for name, path in runs.items())
    if not any(run.curves for run in found):
        raise ValueError(f"nothing is recorded yet in {', '.join(map(str, runs.values()))}")
    rows, panels = summary(found), arranged(found)
    draw = {".svg": as_svg, ".html": as_html, ".png": as_png}[out.suffix]
    drawn = draw(rows, panels)
    with publish_file(out) as file:
        file.write(drawn)
    return found


def read_run(name: str, path: Path) -> RunCurves:
    """What a run has recorded so far.

    Raises:
        FileNotFoundError: there is no metrics.jsonl.
        ValueError: it is damaged before its last line.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{path} has no {METRICS_FILE}: give the folder of a run that has begun")
    by_metric: dict[str, dict[float, float]] = {}
    not_finite, steps = 0, 0
    for record in read_journal(file):
        steps = max(steps, int(record["step"]))
        for metric, value in record.items():
            if metric == "step" or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            points = by_metric.setdefault(metric, {})
            if math.isfinite(value):
                points[record["step"]] = value
            else:
                not_finite += 1
    curves = {metric: sorted(points.items()) for metric, points in by_metric.items()}
    return RunCurves(name=name, steps=steps, curves=curves, not_finite=not_finite)


def summary(runs: Iterable[RunCurves]) -> list[Row]:
    """A row for each run: steps, loss at the end, best evaluation, speed."""
    runs = list(runs)
    judged = next((m for m in _metrics(runs) if m.endswith("mean_recall@1")), None)
    rows = []
    for number, run in enumerate(runs):
        loss, speed = run.last("loss"), run.last("samples_per_s")
        cells = {
            "steps": f"{run.steps:,}",
            "loss at the end": "" if loss is None else f"{loss:.3f}",
            "samples/s": "" if speed is None else f"{speed:,.0f}",
        }
        if judged:
            best = run.best(judged)
            cells[f"best {judged}"] = "" if best is None else f"{best:.1%}"
        if any(other.not_finite for other in runs):
            cells["not finite"] = f"{run.not_finite:,}"
        rows.append(Row(name=run.name, tone=tone(number), cells=cells))
    return rows


def arranged(runs: Iterable[RunCurves]) -> list[Panel]:
    """A panel for each metric that any run has, in an order that reads well."""
    runs = list(runs)
    metrics = _metrics(runs)
    losses = [m for m in metrics if m == "loss" or m.startswith(("clip/", "distill/"))]
    rest = [m for m in metrics if m not in (*losses, *_OPTIMISATION, *_SPEED)]
    groups = {
        "Loss": sorted(losses, key=lambda metric: (metric != "loss", metric)),
        "Evaluation": rest,
        "Optimisation": [m for m in _OPTIMISATION if m in metrics],
        "Speed and memory": [m for m in _SPEED if m in metrics],
    }
    return [_panel(metric, runs, group=group) for group, members in groups.items() for metric in members]


def tone(number: int) -> str:
    """The class that colours a run."""
    return f"r{number % 8}"


def _metrics(runs: Iterable[RunCurves]) -> list[str]:
    """Those with a finite value anywhere, in order of appearance; counters that stayed at zero are left out."""
    metrics = dict.fromkeys(metric for run in runs for metric, curve in run.curves.items() if curve)
    if not any(value for run in runs for _, value in run.curves.get("skipped_steps", ())):
        metrics.pop("skipped_steps", None)
    return list(metrics)


def _panel(metric: str, runs: list[RunCurves], *, group: str) -> Panel:
    is_share = "recall@" in metric or metric.endswith(("_share", "accuracy"))
    unit = "%" if is_share else _UNITS.get(metric, "nats" if group == "Loss" else "")
    lines = []
    for number, run in enumerate(runs):
        points = [(step, 100 * value if is_share else value) for step, value in run.curves.get(metric, ())]
        if len(points) < _LEAST_SMOOTHED or metric == "lr":
            marked = group == "Evaluation" and len(points) <= _MOST_MARKED
            line = Line(label=run.name, tone=tone(number), points=points, markers=marked or len(points) == 1)
        else:
            smooth = _smoothed([value for _, value in points])
            line = Line(
                label=run.name,
                tone=tone(number),
                points=[(step, value) for (step, _), value in zip(points, smooth, strict=True)],
                raw=points,
            )
        lines.append(line)
    from_zero = group == "Speed and memory" or metric == "lr" or is_share
    return Panel(group=group, title=metric, unit=unit, lines=lines, from_zero=from_zero)


def _smoothed(values: list[float]) -> list[float]:
    """The running mean over a twentieth of the values; at the end over those before, so as not to end in noise."""
    window = max(5, len(values) // 20)
    means, half = running_mean(values, window=window), window // 2
    ends = [
        sum(values[at - half :]) / len(values[at - half :]) for at in range(len(values) - half, len(values))
    ]
    return means[: len(values) - half] + ends
