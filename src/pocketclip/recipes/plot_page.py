"""Panels of curves as one drawing (SVG, PNG) or one page (HTML); nothing is loaded from elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pocketclip.recipes.svg import Line, line_chart

_WIDTH, _MARGIN, _GAP, _COLUMNS = 1200, 36, 30, 3
_PANEL_WIDTH = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GAP) // _COLUMNS
_PANEL_HEIGHT = 228
_ROW, _TITLE, _GROUP = (
    25,
    8,
    44,
)  # heights: of a row of the table, of a title over its chart, of a group's heading
_LONGEST_NAME = 46
_FONTS = 'Seravek, "Avenir Next", Ubuntu, "Source Sans 3", "Noto Sans", "Liberation Sans", "DejaVu Sans", sans-serif'
_LIGHT = {
    "paper": "#f6f8f9",
    "ink": "#14212b",
    "muted": "#52606d",
    "rule": "#c6d0d8",
    "faint": "#e3e9ed",
    "r0": "#086973",
    "r1": "#c2551a",
    "r2": "#6f42a8",
    "r3": "#86721a",
    "r4": "#2f6db5",
    "r5": "#b03060",
    "r6": "#4c8033",
    "r7": "#5d6b79",
}
_DARK = {
    "paper": "#0f161b",
    "ink": "#e7edf1",
    "muted": "#9cabb8",
    "rule": "#3a4a57",
    "faint": "#22303a",
    "r0": "#46c6c2",
    "r1": "#f29a5c",
    "r2": "#b896e0",
    "r3": "#cdb750",
    "r4": "#7fb2ec",
    "r5": "#ee86ac",
    "r6": "#96cc7c",
    "r7": "#a3b1be",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run in the table.

    Attributes:
        name: of the run.
        tone: class suffix that colours it.
        cells: column -> text; every row has the same columns.
    """

    name: str
    tone: str
    cells: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart.

    Attributes:
        group: under whose heading it stands; neighbours share it.
        title: the metric.
        unit: of its values; empty for none.
        lines: one for each run, which may be empty.
        from_zero: whether the axis begins at zero.
    """

    group: str
    title: str
    unit: str
    lines: Sequence[Line]
    from_zero: bool

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def chart(self, *, width: int, height: int) -> str:
        """The chart as SVG text."""
        told = "; ".join(
            f"{line.label} ends at {line.points[-1][1]:.4g}" for line in self.lines if line.points
        )
        return line_chart(
            [line for line in self.lines if line.points],
            alt=f"{self.heading} against steps: {told}",
            x_label="step",
            y_label="",
            y_format=(lambda value: f"{value:.3g}") if self.title == "lr" else None,
            y_from_zero=self.from_zero and all(y >= 0 for line in self.lines for _, y in line.points),
            width=width,
            height=height,
        )


def as_svg(rows: Sequence[Row], panels: Sequence[Panel]) -> bytes:
    """One drawing on light paper."""
    return _drawing(rows, panels).encode()


def as_png(rows: Sequence[Row], panels: Sequence[Panel]) -> bytes:
    """The same drawing as pixels, two for each of its units.

    Raises:
        ImportError: resvg is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError(
            "a .png needs resvg_py, not installed here: pip install 'pocketclip[demo]', or draw a .svg or .html"
        ) from error
    drawn = _drawing(rows, panels)
    return bytes(resvg_py.svg_to_bytes(svg_string=drawn, zoom=2, font_family="Liberation Sans"))


def as_html(rows: Sequence[Row], panels: Sequence[Panel]) -> bytes:
    """One page for light, dark and narrow screens."""
    columns = list(rows[0].cells)
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("run", *columns))
    body = "".join(
        f'<tr><th scope="row"><i class="tone-{row.tone}"></i>{escape(row.name)}</th>'
        + "".join(f"<td>{escape(row.cells[name])}</td>" for name in columns)
        + "</tr>"
        for row in rows
    )
    sections = []
    for group, members in itertools.groupby(panels, key=lambda panel: panel.group):
        figures = "".join(
            f"<figure><figcaption>{escape(panel.heading)}</figcaption>"
            f"{panel.chart(width=_PANEL_WIDTH, height=_PANEL_HEIGHT)}</figure>"
            for panel in members
        )
        sections.append(f'<h2>{escape(group)}</h2><div class="panels">{figures}</div>')
    title = ", ".join(row.name for row in rows)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_page_style()}</style></head><body>"
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{''.join(sections)}</body></html>\n"
    ).encode()


def _drawing(rows: Sequence[Row], panels: Sequence[Panel]) -> str:
    parts, y = _table(rows)
    for group, members in itertools.groupby(panels, key=lambda panel: panel.group):
        parts.append(f'<text class="group" x="{_MARGIN}" y="{y + 28}">{escape(group)}</text>')
        y += _GROUP
        grid = list(members)
        for start in range(0, len(grid), _COLUMNS):
            for column, panel in enumerate(grid[start : start + _COLUMNS]):
                x = _MARGIN + column * (_PANEL_WIDTH + _GAP)
                parts.append(f'<text class="title" x="{x}" y="{y + 14}">{escape(panel.heading)}</text>')
                chart = panel.chart(width=_PANEL_WIDTH, height=_PANEL_HEIGHT)
                place = f'x="{x}" y="{y + _TITLE}" width="{_PANEL_WIDTH}" height="{_PANEL_HEIGHT}" overflow="visible"'
                parts.append(chart.replace("<svg ", f"<svg {place} ", 1))
            y += _TITLE + _PANEL_HEIGHT + 14
    height = y + 16
    told = escape("Curves of " + ", ".join(row.name for row in rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{told}"><style>{_drawing_style()}</style>'
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


def _table(rows: Sequence[Row]) -> tuple[list[str], int]:
    """The runs with their colours and figures, and where the table ends."""
    columns = list(rows[0].cells)
    names = [_shortened(row.name) for row in rows]
    right = _MARGIN + 40 + round(7.4 * max(map(len, names)))
    places = {}
    for name in columns:
        right += 34 + round(6.9 * max(len(name), *(len(row.cells[name]) for row in rows)))
        places[name] = right
    y = 48
    parts = [f'<text class="note end" x="{places[name]}" y="{y}">{escape(name)}</text>' for name in columns]
    for row, name in zip(rows, names, strict=True):
        y += _ROW
        parts.append(
            f'<path class="line tone-{row.tone}" d="M{_MARGIN},{y - 4.5}h26"/>'
            f'<text class="run" x="{_MARGIN + 36}" y="{y}">{escape(name)}</text>'
        )
        parts += [
            f'<text class="end" x="{places[key]}" y="{y}">{escape(row.cells[key])}</text>' for key in columns
        ]
    return parts, y + 12


def _shortened(name: str) -> str:
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _drawing_style() -> str:
    """Colours are literal: programs that draw SVG seldom know variables."""
    tones = "".join(
        f".line.tone-{name},.raw.tone-{name}{{stroke:{_LIGHT[name]}}}.dot.tone-{name}{{fill:{_LIGHT[name]}}}"
        for name in _LIGHT
        if name.startswith("r") and name != "rule"
    )
    ink, muted = _LIGHT["ink"], _LIGHT["muted"]
    return (
        f"text{{font-family:{_FONTS};font-size:13px;fill:{ink}}}.paper{{fill:{_LIGHT['paper']}}}"
        f".group{{font-size:17px;font-weight:600}}.title,.run{{font-weight:600}}.end{{text-anchor:end}}"
        f".tick,.note{{font-size:12px;fill:{muted}}}.grid{{stroke:{_LIGHT['faint']}}}.axis{{stroke:{_LIGHT['rule']}}}"
        ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
        f".raw{{fill:none;stroke-width:1;opacity:.3}}.dot{{stroke:{_LIGHT['paper']};stroke-width:1.2}}{tones}"
    )


def _page_style() -> str:
    tones = "".join(f".tone-r{number}{{--tone:var(--r{number})}}" for number in range(8))
    return (
        f":root{{color-scheme:light dark;{_variables(_LIGHT)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_variables(_DARK)}}}}}"
        f"*{{box-sizing:border-box}}body{{margin:0 auto;max-width:84rem;padding:2rem clamp(1rem,3vw,2.5rem) 3rem;"
        f"background:var(--paper);color:var(--ink);font:15px/1.5 {_FONTS};font-variant-numeric:tabular-nums}}"
        "h2{font-size:1.15rem;font-weight:600;margin:2.2rem 0 .9rem}.scroll{overflow-x:auto}"
        "table{border-collapse:collapse}th,td{padding:.25rem 2rem .25rem 0;text-align:right;white-space:nowrap}"
        "th:first-child{text-align:left}thead th{color:var(--muted);font-weight:400;font-size:13px}"
        "tbody th{font-weight:600}th i{display:inline-block;width:1.5rem;height:3px;border-radius:2px;"
        "margin-right:.7rem;vertical-align:.25em;background:var(--tone)}"
        ".panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:1.6rem 2rem}"
        "figure{margin:0}figcaption{font-weight:600;font-size:14px;margin-bottom:-.7rem}"
        f"svg{{display:block;width:100%;height:auto;overflow:visible;font-family:{_FONTS}}}"
        "svg text{font-size:12px;fill:var(--muted)}.grid{stroke:var(--faint)}.axis{stroke:var(--rule)}"
        ".line{fill:none;stroke:var(--tone);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
        ".raw{fill:none;stroke:var(--tone);stroke-width:1;opacity:.35}"
        f".dot{{fill:var(--tone);stroke:var(--paper);stroke-width:1.2}}{tones}"
    )


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())
