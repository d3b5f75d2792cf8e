"""`pocketclip plot`: curves of runs side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from pocketclip.cli.extras import require
from pocketclip.cli.verbs import Outcome, UsageError

if TYPE_CHECKING:
    from pocketclip.recipes.plot_page import Row


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Draw the curves of runs side by side: losses, evaluations, learning rate, throughput, memory.

    They come from each run's metrics.jsonl, so a run may be under way. The suffix of --out chooses the kind: .html is a
    page for light and dark screens, .svg and .png are drawings.

    Examples:
        pocketclip plot runs/plain runs/kd --out curves.html
        pocketclip plot before=runs/a after=runs/b --out curves.svg
    """

    runs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[NAME=]RUN ...", help_behavior_hint="(required)")
    ]
    """Folders of runs; a folder's name is its run's where none is given."""
    out: Path
    """File to write: .svg, .png or .html."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Draws."""
        if not self.runs:
            raise UsageError("plot needs a run or more, [NAME=]RUN")
        require("plot", ("train",))
        from pocketclip.recipes.plot import plot, summary

        found = plot(_named(self.runs), self.out)
        text = "\n".join([*_table(summary(found)), "", f"drawn: {self.out}"])
        return Outcome(text, {"out": str(self.out), "runs": {run.name: _values(run) for run in found}})


def _values(run: object) -> dict[str, object]:
    return {key: value for key, value in asdict(run).items() if key != "name"}  # ty: ignore[invalid-argument-type]


def _named(texts: Sequence[str]) -> dict[str, Path]:
    """Name -> folder; folders of one name are told apart by their parents'."""
    given = [
        (text.partition("=")[0] if "=" in text else None, Path(text.partition("=")[2] or text))
        for text in texts
    ]
    short = Counter(path.resolve().name for name, path in given if name is None)
    runs: dict[str, Path] = {}
    for name, path in given:
        whole = path.resolve()
        own = name or (whole.name if short[whole.name] == 1 else f"{whole.parent.name}/{whole.name}")
        if own in runs:
            raise UsageError(f"two runs are called {own}: name them, NAME={path}")
        runs[own] = path
    return runs


def _table(rows: Sequence[Row]) -> list[str]:
    cells = [["run", *rows[0].cells], *([row.name, *row.cells.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
