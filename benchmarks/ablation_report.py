"""Tables and figures of benchmarks/ablation.py, out of what its runs left."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from pocketclip.recipes.svg import Bar, Line, bar_chart, line_chart, signed

SPLITS = ("test-style", "test-composition", "test-unseen")
KINDS = ("plain", "reinforced")
SHARES = (0.25, 0.5, 0.75)  # of all steps, for the curve over samples
PANEL = 260  # width of a panel of bars
TONES = {"plain": "#c2551a", "reinforced": "#086973"}
STYLE = """
text { font: 12.5px sans-serif; fill: #14212b; } .tick, .note { fill: #52606d; } .title { font-weight: 600; }
svg { overflow: visible; } .paper { fill: #fff; } .grid { stroke: #e6ebef; } .axis { stroke: #d3dbe1; }
.line { fill: none; stroke-width: 2; } .raw { opacity: 0.14; } .halo { stroke: #fff; stroke-width: 4; }
.whisker { stroke: #14212b; stroke-width: 1.4; }
""" + "".join(
    f".line.tone-{tone} {{ stroke: {colour}; }} "
    f".dot.tone-{tone}, .legend.tone-{tone}, .raw.tone-{tone}, .bar.tone-{tone} {{ fill: {colour}; }}\n"
    for tone, colour in TONES.items()
)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A line of results.jsonl.

    Attributes:
        key: of the student, or a teacher's name.
        seed: of the student.
        scores: percent by split and metric.
        recipe: its name.
        digest: of the resolved recipe and the choice of data.
        num_steps: of the run.
        num_samples: seen.
        cpu_s: processor seconds of training, data and model start included; None where a run was interrupted.
        wall_s: seconds of the same.
    """

    key: str
    seed: int
    scores: Mapping[str, Mapping[str, float]]
    recipe: str = ""
    digest: str = ""
    num_steps: int = 0
    num_samples: int = 0
    cpu_s: float | None = None
    wall_s: float | None = None

    def mean(self, metric: str = "mean_recall@1") -> float:
        """Of the test sets."""
        return statistics.mean(self.scores[split][metric] for split in SPLITS)


Results = Mapping[tuple[str, int], RunResult]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows to compare.

    Attributes:
        title: over it.
        rows: label -> key of a student; the first is what the others are compared with.
        claims_gain: done with every seed before the others get a second one.
    """

    title: str
    rows: Mapping[str, str]
    claims_gain: bool = False


def texts(tables: Mapping[str, Table], results: Results) -> Iterator[str]:
    """Markdown, a table after the other."""
    for name, table in tables.items():
        yield markdown(table, results)
        if name == "samples":
            yield reached(results)
    alone = [(name, result) for (name, _), result in results.items() if name.startswith("teacher-")]
    yield "\n".join(
        f"{name}: {cells(results, name, [0])}, mean {result.mean():.1f}" for name, result in alone
    )


def markdown(table: Table, results: Results) -> str:
    """One table of what is done; empty while there is nothing to compare."""
    if sum(bool(seeds_of(results, key)) for key in table.rows.values()) < 2:
        return ""
    first = next(iter(table.rows.values()))
    columns = ["recall@1, %", "seeds", *SPLITS, "mean", "from the first", "higher in", "R@5", "CPU ms a step"]
    lines = [f"### {table.title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for label, key in table.rows.items():
        seeds = seeds_of(results, key)
        if not seeds:
            continue
        common = [seed for seed in seeds if (first, seed) in results]
        gains = [results[key, seed].mean() - results[first, seed].mean() for seed in common]
        row = [label, str(len(seeds)), cells(results, key, seeds), spread(means(results, key, seeds))]
        row += (
            ["", ""]
            if key == first
            else [spread(gains, sign=True), f"{sum(g > 0 for g in gains)} of {len(gains)}"]
        )
        row += [
            spread([results[key, seed].mean("mean_recall@5") for seed in seeds]),
            cost(results, key, seeds),
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def seeds_of(results: Results, key: str) -> list[int]:
    """Those that are done."""
    return sorted(seed for name, seed in results if name == key)


def means(results: Results, key: str, seeds: Sequence[int]) -> list[float]:
    """Recall@1 over the test sets, a number a seed."""
    return [results[key, seed].mean() for seed in seeds]


def cells(results: Results, key: str, seeds: Sequence[int]) -> str:
    """Recall@1 on each test set."""
    return " | ".join(
        spread([results[key, s].scores[split]["mean_recall@1"] for s in seeds]) for split in SPLITS
    )


def spread(values: Sequence[float], *, sign: bool = False) -> str:
    """Mean and standard deviation; the value alone where there is one."""
    if not values:
        return ""
    middle = signed(statistics.mean(values)) if sign else f"{statistics.mean(values):.1f}"
    return middle + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def cost(results: Results, key: str, seeds: Sequence[int]) -> str:
    """Median processor milliseconds a step."""
    runs = [results[key, seed] for seed in seeds]
    times = [1000 * run.cpu_s / run.num_steps for run in runs if run.cpu_s is not None and run.num_steps]
    return f"{statistics.median(times):.0f}" if times else ""


def curves(results: Results) -> tuple[list[int], dict[str, list[tuple[float, list[float]]]]]:
    """Seeds that have all these runs, and by kind (samples, recall@1 of each of the seeds); nothing where none has."""
    keys = {kind: [*(f"{kind}-{share}" for share in SHARES), kind] for kind in KINDS}
    seeds = sorted(set.intersection(*(set(seeds_of(results, key)) for kind in KINDS for key in keys[kind])))
    if not seeds:
        return [], {}
    points = {
        kind: [(float(results[key, seeds[0]].num_samples), means(results, key, seeds)) for key in keys[kind]]
        for kind in KINDS
    }
    return seeds, points


def reached(results: Results) -> str:
    """After how many samples the reinforced student is where the plain one ends."""
    seeds, points = curves(results)
    if not seeds:
        return ""
    end, goals = points["plain"][-1]
    goal = statistics.mean(goals)
    found = crossing([(samples, statistics.mean(values)) for samples, values in points["reinforced"]], goal)
    each = []
    for number in range(len(seeds)):
        own = [(samples, values[number]) for samples, values in points["reinforced"]]
        at = crossing(own, goals[number])
        each.append("never" if at is None else f"{end / at:.1f}")
    where = "never" if found is None else f"after {found:,.0f}, with {end / found:.1f} times fewer"
    return (
        f"Plain ends at {goal:.1f} after {end:,.0f} samples; reinforced is there {where} (means of {len(seeds)} seeds, "
        f"straight lines between runs; by seed: {', '.join(each)} times)."
    )


def crossing(points: Sequence[tuple[float, float]], goal: float) -> float | None:
    """Where the line through (0, 0) and the points first is at `goal`."""
    for (x0, y0), (x1, y1) in pairwise([(0.0, 0.0), *points]):
        if y1 >= goal:
            return x0 + (x1 - x0) * (goal - y0) / (y1 - y0)
    return None


def draw_samples(results: Results) -> str:
    """SVG: recall over samples, plain and reinforced, with a band of a standard deviation; empty without these runs."""
    lines = []
    for kind, points in curves(results)[1].items():
        middle = [(samples, statistics.mean(values)) for samples, values in points]
        widths = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points]
        upper = [(x, y + width) for (x, y), width in zip(middle, widths, strict=True)]
        lower = [(x, y - width) for (x, y), width in zip(middle, widths, strict=True)]
        lines.append(Line(label=kind, tone=kind, points=middle, raw=[*upper, *reversed(lower)], markers=True))
    if not lines:
        return ""
    title = "Mean recall@1 of three test sets, %"
    chart = line_chart(
        lines, alt=title, x_label="samples seen", y_label="%", y_from_zero=True, width=560, height=300
    )
    parts = [f'<text class="title" x="10" y="20">{title}</text>']
    parts += [
        f'<text class="legend tone-{kind}" x="{10 + 60 * number}" y="40">{kind}</text>'
        for number, kind in enumerate(KINDS)
    ]
    parts.append(chart.replace("<svg ", '<svg x="10" y="54" width="560" height="300" ', 1))
    return page(parts, width=580, height=364)


def draw_tables(tables: Mapping[str, Table], results: Results) -> str:
    """SVG: a panel of bars for each of the other tables."""
    parts, across, down, tallest = [], 0, 0, 0
    for name, table in tables.items():
        rows = [(label, key, seeds_of(results, key)) for label, key in table.rows.items()]
        if name == "samples" or sum(bool(seeds) for _, _, seeds in rows) < 2:
            continue
        bars = []
        for label, key, seeds in rows:
            if seeds:
                values = means(results, key, seeds)
                width = statistics.stdev(values) if len(values) > 1 else 0.0
                middle = statistics.mean(values)
                tone = "plain" if key.endswith("plain") else "reinforced"
                bars.append(
                    Bar(label=label, tone=tone, value=middle, low=middle - width, high=middle + width)
                )
        high = max(bar.high for bar in bars)
        chart = bar_chart(bars, limit=high, alt=table.title, unit="%", width=PANEL)
        height = 44 * len(bars) + 26
        title = escape(table.title.split(",")[0])
        x = 14 + across * (PANEL + 40)
        parts.append(f'<text class="title" x="{x}" y="{down + 22}">{title}</text>')
        place = f'<svg x="{x}" y="{down + 34}" width="{PANEL}" height="{height}" '
        parts.append(chart.replace("<svg ", place, 1))
        across, tallest = across + 1, max(tallest, height)
        if across == 3:
            across, down, tallest = 0, down + tallest + 60, 0
    return page(parts, width=3 * (PANEL + 40), height=down + (tallest + 60 if across else 0))


def page(parts: Sequence[str], *, width: int, height: int) -> str:
    """An SVG file of its parts."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"><style>{STYLE}</style>'
    return head + f'<rect class="paper" width="{width}" height="{height}"/>' + "".join(parts) + "</svg>\n"
