"""Result files: one JSON object a line, as DataComp's suite and the published models' files have them, and averages.

    {"key": "vtab/pets", "dataset": "Oxford-IIIT Pet", "metrics": {"acc1": 0.91, ..., "main_metric": 0.91}}

Rows written here have one field more, `pocketclip`: which model, which data, and how sure the number is. Literal NaN
occurs (the accuracy of a group without pictures), and `acc5` is null where there are fewer than five classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue
from pocketclip.evaluate.tasks import AVERAGED, SHIFTS, TASKS, find_tasks

DETAILS = "pocketclip"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one model scored on one set.

    Attributes:
        key: of the task, as in `TASKS`, or of a set of one's own.
        dataset: its name for people.
        metrics: name -> value, 0..1 but for counts; `main_metric` among them; None and NaN occur.
        details: of rows that pocketclip wrote: model, data, intervals.
    """

    key: str
    dataset: str
    metrics: Mapping[str, float | None]
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def main(self) -> float | None:
        """The main metric; None where the set has none or it is not a number."""
        value = self.metrics.get("main_metric")
        if value is None and "main_metric" not in self.metrics and self.key in TASKS:
            value = self.metrics.get(TASKS[self.key].main_metric or "")
        return None if value is None or math.isnan(value) else value

    def to_json(self) -> str:
        """One line, without its end."""
        fields: dict[str, object] = {"key": self.key, "dataset": self.dataset, "metrics": dict(self.metrics)}
        if self.details:
            fields[DETAILS] = dict(self.details)
        return json.dumps(fields, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Average:
    """A mean of main metrics that says of how many sets.

    Attributes:
        value: 0..1.
        num_sets: how many main metrics it is the mean of, at least 1.
        missing: keys of the 38 that are not in it.
    """

    value: float
    num_sets: int
    missing: tuple[str, ...]

    @property
    def label(self) -> str:
        """ "average of 38" when all are there, else "mean of n of the 38 sets"."""
        return f"mean of {self.num_sets} of the 38 sets" if self.missing else "average of 38"


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a result file, whoever wrote it.

    Raises:
        ValueError: a line is not a row, or a key occurs twice; the sentence names file and line.
        OSError: the file cannot be read.
    """
    rows: dict[str, Row] = {}
    text = Path(path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row = _parse(line, where=f"{path}, line {number}")
        if row.key in rows:
            raise ValueError(f"{path}, line {number}: a second row for {row.key}: keep one of them")
        rows[row.key] = row
    return tuple(rows.values())


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Publishes a result file, whole or not at all.

    Raises:
        PublishError: it cannot be written.
    """
    with publish_file(Path(path)) as file:
        file.writelines(f"{row.to_json()}\n".encode() for row in rows)


def average(rows: Sequence[Row]) -> Average | None:
    """The mean of the main metrics of those of the 38 sets that are there; None where none is.

    SugarCrepe, long captions, the sets without a main metric and one's own sets do not count.
    """
    found = {_published_key(row.key): row.main for row in rows}
    values = {key: value for key, value in found.items() if key in AVERAGED and value is not None}
    if not values:
        return None
    missing = tuple(key for key in TASKS if key in AVERAGED and key not in values)
    return Average(value=math.fsum(values.values()) / len(values), num_sets=len(values), missing=missing)


def average_38(rows: Sequence[Row]) -> float:
    """The published average (arXiv 2508.20691, Table 8): mean of the 38 main metrics, 0..1.

    Raises:
        ValueError: not all 38 are there; the sentence names what is missing.
    """
    found = average(rows)
    if found is None or found.missing:
        missing = tuple(AVERAGED) if found is None else found.missing
        raise ValueError(
            f"an average of 38 sets needs all 38, and {len(missing)} are missing ({', '.join(sorted(missing)[:5])}"
            f"{', ...' if len(missing) > 5 else ''}): evaluate them, or take the mean of those that are there"
        )
    return found.value


def shift_average(rows: Sequence[Row]) -> float | None:
    """Mean accuracy over ImageNet's six shifted sets (Table 8's IN-shift), 0..1; None unless all six are there."""
    found = {row.key: row.main for row in rows}
    values = [value for key in SHIFTS if (value := found.get(key)) is not None]
    return math.fsum(values) / len(values) if len(values) == len(SHIFTS) else None


def robustness_gap(rows: Sequence[Row]) -> float | None:
    """ImageNet's accuracy less `shift_average`, 0..1; None unless all seven sets are there."""
    plain = next((row.main for row in rows if row.key == "imagenet1k"), None)
    shifted = shift_average(rows)
    return None if plain is None or shifted is None else plain - shifted


def _published_key(key: str) -> str:
    """DataComp's own files call Flickr otherwise."""
    found = find_tasks(key)
    return found[0].key if len(found) == 1 else key


def _parse(line: str, *, where: str) -> Row:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}): this is no result file, or it was cut") from error
    key = fields.get("key") if isinstance(fields, dict) else None
    metrics = fields.get("metrics") if isinstance(fields, dict) else None
    if not isinstance(key, str) or not isinstance(metrics, dict):
        raise ValueError(f'{where} has no "key" and "metrics": give results of `pocketclip evaluate --tasks`')
    wrong = [
        name
        for name, value in metrics.items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float))
    ]
    if wrong:
        raise ValueError(f"{where}: metric {wrong[0]} is {metrics[wrong[0]]!r}, not a number")
    details = fields.get(DETAILS)
    return Row(
        key=key,
        dataset=str(fields.get("dataset", key)),
        metrics={name: None if value is None else float(value) for name, value in metrics.items()},
        details=details if isinstance(details, dict) else {},
    )
