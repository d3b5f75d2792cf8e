"""Published figures as data: the paper's Table 8, and the main metrics of the released evaluation results.

Both tables are copied facts, shipped beside this file, with their source in their first lines. Results of one's own
are read from the same layout, one JSON object a line.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

_DATA = files("pocketclip.evaluate") / "published_data"
_NOT_IN_THE_MEAN = ("comp/", "longclip/")
MAIN = "main_metric"
IMAGENET = "imagenet1k"
SHIFTS = ("imagenetv2", "imagenet_sketch", "imagenet-r", "imagenet-a", "imagenet-o", "objectnet")
"""The six sets whose mean is Table 8's `IN-shift`."""


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


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """A model on one set.

    Attributes:
        key: of the set, for instance `vtab/caltech101`.
        dataset: its name for people.
        main: its main metric, 0..1; None where the set has none or it is not a number.
        metrics: everything else that was measured.
    """

    key: str
    dataset: str
    main: float | None
    metrics: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean of main metrics, and of how many sets."""

    value: float
    num_sets: int

    @property
    def is_whole(self) -> bool:
        """Whether it is the mean of all 38."""
        return self.num_sets == len(mean_keys())

    @property
    def name(self) -> str:
        """`mean of 38` when all of DataComp's sets are in it, `mean of n of 38` otherwise."""
        whole = len(mean_keys())
        return f"mean of {whole}" if self.is_whole else f"mean of {self.num_sets} of {whole}"


@cache
def table8() -> Mapping[str, PublishedModel]:
    """Name -> row of Table 8, in the table's order: 44 models, by the average or the latency as printed."""
    return {row["name"]: _model(row) for row in _rows("table8.csv")}


@cache
def published_results() -> Mapping[str, Mapping[str, SetResult]]:
    """Model (its name in Table 8) -> key of a set -> result, of the 14 released result files."""
    rows = list(_rows("results.csv"))
    models = [name for name in rows[0] if name not in ("key", "dataset", "metric")]
    return {model: _results_of(model, rows) for model in models}


@cache
def mean_keys() -> tuple[str, ...]:
    """Keys of the 38 sets whose main metrics make the average."""
    first = next(iter(published_results().values()))
    return tuple(key for key, row in first.items() if row.main is not None and counts(key))


def counts(key: str) -> bool:
    """Whether a set may count for the average: compositional and long-caption sets do not."""
    return not key.startswith(_NOT_IN_THE_MEAN)


def mean_of(results: Mapping[str, SetResult]) -> Mean | None:
    """The mean main metric over those of the 38 sets that are there; None when none is."""
    found = [
        row.main for key in mean_keys() if (row := results.get(key)) is not None and row.main is not None
    ]
    return Mean(value=math.fsum(found) / len(found), num_sets=len(found)) if found else None


def shift_of(results: Mapping[str, SetResult]) -> float | None:
    """The mean over the six shifted sets (Table 8's IN-shift), 0..1; None unless all six are there."""
    found = [row.main for key in SHIFTS if (row := results.get(key)) is not None and row.main is not None]
    return math.fsum(found) / len(found) if len(found) == len(SHIFTS) else None


def read_results(path: Path | str) -> dict[str, SetResult]:
    """Results in the published layout: `{"key", "dataset", "metrics": {..., "main_metric"}}` a line.

    Returns:
        Key of the set -> result, in the file's order.

    Raises:
        ValueError: a line that is not such a record, or a set that occurs twice, with its place.
        OSError: the file cannot be read.
    """
    path = Path(path)
    results: dict[str, SetResult] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = _parse(line, place=f"{path}, line {number}")
        if row.key in results:
            raise ValueError(f"{path}, line {number}: set {row.key!r} is there already: keep one of the two")
        results[row.key] = row
    if not results:
        raise ValueError(f"{path} holds no results: give a file written by `pocketclip evaluate`")
    return results


def _parse(line: str, *, place: str) -> SetResult:
    try:
        fields = json.loads(line)  # NaN, which occurs in the published files, is read as a float
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{place} is not JSON ({error.msg}): give a results file, one object a line"
        ) from None
    metrics = fields.get("metrics") if isinstance(fields, dict) else None
    if not isinstance(metrics, dict) or not isinstance(fields.get("key"), str):
        raise ValueError(f"{place} has no key and metrics: give a results file, one object a line")
    numbers = {name: _number(value) for name, value in metrics.items() if _is_number(value) or value is None}
    main = numbers.get(MAIN)
    return SetResult(
        key=fields["key"],
        dataset=str(fields.get("dataset", fields["key"])),
        main=None if main is None or not math.isfinite(main) else main,
        metrics={name: value for name, value in numbers.items() if name != MAIN},
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _rows(name: str) -> Iterator[dict[str, str]]:
    """A shipped table's rows; its first lines say where it comes from."""
    with (_DATA / name).open(encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))


def _results_of(model: str, rows: Sequence[Mapping[str, str]]) -> dict[str, SetResult]:
    by_key: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row[model] or row["metric"] == MAIN:
            by_key.setdefault(row["key"], {})[row["metric"]] = _cell(row[model])
    names = {row["key"]: row["dataset"] for row in rows}
    return {
        key: SetResult(
            key=key,
            dataset=names[key],
            main=metrics.get(MAIN),
            metrics={name: value for name, value in metrics.items() if name != MAIN},
        )
        for key, metrics in by_key.items()
    }


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
