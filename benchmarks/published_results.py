"""Makes the table of published results that the package ships, from the released result files.

    .venv/bin/python benchmarks/published_results.py RESULTS_FOLDER

RESULTS_FOLDER holds the jsonl files of the release (`results/` of github.com/apple/ml-mobileclip). Main metrics of all
sets, and recall@1 of both directions of the two retrieval sets, rounded to six digits.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

from pocketclip.evaluate.published import MAIN
from pocketclip.evaluate.rows import Row, read_rows

OUT = Path(__file__).parents[1] / "src/pocketclip/evaluate/published_data/results.csv"
RECALLS = ("image_retrieval_recall@1", "text_retrieval_recall@1")
HEAD = """\
# Main metrics (0..1) of the evaluation results that were released with MobileCLIP and MobileCLIP2 (arXiv 2508.20691).
# Source: the jsonl files in `results/` of github.com/apple/ml-mobileclip. Made by benchmarks/published_results.py.
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Where the results are."""

    folder: Positional[Path]
    """The released jsonl files."""


def main(arguments: Arguments) -> None:
    """Writes the table."""
    models = {
        table_name(path.stem): {row.key: row for row in read_rows(path)}
        for path in sorted(arguments.folder.glob("*.jsonl"))
    }
    keys = list(dict.fromkeys(key for results in models.values() for key in results))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["key", "dataset", "metric", *models])
    for key in keys:
        dataset = next(results[key].dataset for results in models.values() if key in results)
        for metric in (MAIN, *(RECALLS if key.startswith("retrieval/") else ())):
            rows.writerow(
                [key, dataset, metric, *(cell(results.get(key), metric) for results in models.values())]
            )
    OUT.write_text(HEAD + text.getvalue(), encoding="utf-8")
    print(f"{len(models)} models, {len(keys)} sets: {OUT}")


def table_name(stem: str) -> str:
    """`mobileclip2_l14` -> `MobileCLIP2-L/14`, as Table 8 has it."""
    generation, _, size = stem.partition("_")
    size = {"b_lt": "B(LT)", "l14": "L/14"}.get(size, size.upper())
    return f"{generation.replace('mobileclip', 'MobileCLIP')}-{size}"


def cell(row: Row | None, metric: str) -> str:
    """Empty where there is none."""
    value = None if row is None else row.main if metric == MAIN else row.metrics[metric]
    return "" if value is None else f"{value:.6f}"


if __name__ == "__main__":
    main(tyro.cli(Arguments))
