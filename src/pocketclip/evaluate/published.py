"""Published figures as data: the paper's Table 8, and the main metrics of the released evaluation results.

Both tables are copied facts, shipped beside this file, with their source in their first lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pocketclip.evaluate.rows import Row
from pocketclip.evaluate.tasks import TASKS

_DATA = files("pocketclip.evaluate") / "published_data"
MAIN = "main_metric"


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A row of Table 8 (MobileCLIP2, arXiv 2508.20691); None where the table has no figure.

    Attributes:
        name: as the table has it.
        family: whose it is: MobileCLIP2, MobileCLIP, SigLIP2, SigLIP, DFN, OpenAI and so on.
        params_image_m: millions of parameters of the image tower.
        params_text_m: of the text tower.
        latency_image_ms: of the image tower for one picture on an iPhone 12 Pro Max.
        latency_text_ms: of the text tower for one text.
        imagenet: zero-shot top-1 accuracy on ImageNet-1k, percent.
        shift: mean over the six shifted sets, percent.
        mean38: mean over the 38 sets of DataComp, percent.
        retrieval: set and direction (`flickr30k_t2i`, `coco_i2t` and so on) -> recall@1, percent.
    """

    name: str
    family: str
    params_image_m: float | None
    params_text_m: float | None
    latency_image_ms: float | None
    latency_text_ms: float | None
    imagenet: float | None
    shift: float | None
    mean38: float | None
    retrieval: Mapping[str, float]

    @property
    def latency_ms(self) -> float | None:
        """Both towers together, one picture and one text."""
        if self.latency_image_ms is None or self.latency_text_ms is None:
            return None
        return self.latency_image_ms + self.latency_text_ms


@cache
def table8() -> Mapping[str, PublishedModel]:
    """Name -> row of Table 8, in the table's order: 44 models, by the average or the latency as printed."""
    return {row["name"]: _model(row) for row in _rows("table8.csv")}


@cache
def published_results() -> Mapping[str, tuple[Row, ...]]:
    """Model (its name in Table 8) -> its rows, of the 14 released result files: main metrics, and recalls of retrieval.

    The older seven models have no rows for compositional and long-caption sets.
    """
    rows = list(_rows("results.csv"))
    models = [name for name in rows[0] if name not in ("key", "dataset", "metric")]
    return {model: _results_of(model, rows) for model in models}


def find_published(name: str) -> str | None:
    """The name in Table 8 of a model in any spelling (`mobileclip2_l_14`, `MobileCLIP2-L-14`); None for none."""
    spelled = {_plain(model): model for model in table8()}
    return spelled.get(_plain(name))


def _rows(name: str) -> Iterator[dict[str, str]]:
    """A shipped table's rows; its first lines say where it comes from."""
    with (_DATA / name).open(encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))


def _results_of(model: str, rows: Sequence[Mapping[str, str]]) -> tuple[Row, ...]:
    metrics: dict[str, dict[str, float | None]] = {}
    for row in rows:
        metrics.setdefault(row["key"], {})[row["metric"]] = _cell(row[model])
    names = {row["key"]: row["dataset"] for row in rows}
    is_there = {key for key, found in metrics.items() if key in TASKS and TASKS[key].main_metric is None}
    is_there |= {key for key, found in metrics.items() if found[MAIN] is not None}
    return tuple(
        Row(key=key, dataset=names[key], metrics=found) for key, found in metrics.items() if key in is_there
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _model(row: Mapping[str, str]) -> PublishedModel:
    numbers = {name: _cell(text) for name, text in row.items() if name.startswith(("params", "latency"))}
    recalls = {name: _cell(text) for name, text in row.items() if name.startswith(("flickr30k", "coco"))}
    return PublishedModel(
        name=row["name"],
        family=row["name"].partition("-")[0],
        params_image_m=numbers["params_image_m"],
        params_text_m=numbers["params_text_m"],
        latency_image_ms=numbers["latency_image_ms"],
        latency_text_ms=numbers["latency_text_ms"],
        imagenet=_cell(row["in_val"]),
        shift=_cell(row["in_shift"]),
        mean38=_cell(row["avg38"]),
        retrieval={name: value for name, value in recalls.items() if value is not None},
    )


def _cell(text: str) -> float | None:
    return float(text) if text else None
