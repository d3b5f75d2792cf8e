"""Result files of several models side by side: set by set, with paired differences that say how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketclip.evaluate.book import queries_path
from pocketclip.evaluate.bootstrap import Interval, bootstrap_difference
from pocketclip.evaluate.published import find_published, published_results
from pocketclip.evaluate.resample import paired_difference, read_queries, same_queries
from pocketclip.evaluate.rows import Average, Row, average, read_rows
from pocketclip.evaluate.tasks import AVERAGED, TASKS

RESULTS = "results.jsonl"
_SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One of the models.

    Attributes:
        name: in tables.
        rows: key of the set -> result.
        path: its result file; None for a published model.
    """

    name: str
    rows: Mapping[str, Row]
    path: Path | None

    @property
    def average(self) -> Average | None:
        """The mean over those of the 38 sets that are there."""
        return average(tuple(self.rows.values()))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A model against the baseline.

    Attributes:
        model: its name.
        over_sets: mean difference of main metrics, 0..1, with the paired bootstrap interval over sets; None where they
            share none.
        num_sets: that both have.
        wins: sets on which the model is above.
        losses: on which it is below.
        of_set: key -> difference with the paired bootstrap interval over queries, where both kept theirs.
    """

    model: str
    over_sets: Interval | None
    num_sets: int
    wins: int
    losses: int
    of_set: Mapping[str, Interval]

    @property
    def ties(self) -> int:
        """Sets on which both are equal."""
        return self.num_sets - self.wins - self.losses


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models side by side.

    Attributes:
        models: the first is the baseline.
        differences: of each other model.
        level: share of resamples inside the intervals.
    """

    models: tuple[Compared, ...]
    differences: tuple[Difference, ...]
    level: float

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all sets that any model has, in the order of `TASKS`, one's own last."""
        there = dict.fromkeys(key for model in self.models for key in model.rows)
        known = [key for key in TASKS if key in there]
        return (*known, *(key for key in there if key not in TASKS))

    def table(self) -> str:
        """Everything as aligned plain text, in percent."""
        first, *others = self.models
        head = ["set", *(model.name for model in self.models)]
        head += [f"{model.name} - {first.name}" for model in others]
        cells = [head]
        for key in self.keys:
            mains = [_main(model, key) for model in self.models]
            if all(main is None for main in mains):
                continue
            changes = [
                _change(difference, key, mains[0], main)
                for difference, main in zip(self.differences, mains[1:], strict=True)
            ]
            cells.append([_name(self.models, key), *map(_percent, mains), *changes])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}"
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        lines += ["", *(self._average_line(model) for model in self.models), ""]
        lines += [self._difference_line(difference) for difference in self.differences]
        if any(difference.of_set for difference in self.differences):
            lines.append(f"* its {100 * self.level:g}% interval over the set's own queries leaves out 0")
        return "\n".join(lines)

    def values(self) -> dict[str, object]:
        """Plain values for scripts; metrics 0..1."""
        return {
            "baseline": self.models[0].name,
            "level": self.level,
            "models": {
                model.name: {
                    "average": None if model.average is None else model.average.value,
                    "num_sets": 0 if model.average is None else model.average.num_sets,
                    "sets": {key: row.main for key, row in model.rows.items()},
                }
                for model in self.models
            },
            "differences": [
                {
                    "model": one.model,
                    "over_sets": None if one.over_sets is None else _ends(one.over_sets),
                    "num_sets": one.num_sets,
                    "wins": one.wins,
                    "losses": one.losses,
                    "ties": one.ties,
                    "of_set": {key: _ends(interval) for key, interval in one.of_set.items()},
                }
                for one in self.differences
            ],
        }

    def _average_line(self, model: Compared) -> str:
        found = model.average
        return f"{model.name}: " + (
            f"{found.label} {100 * found.value:.2f}" if found else "none of the 38 sets"
        )

    def _difference_line(self, one: Difference) -> str:
        first = self.models[0].name
        if one.over_sets is None:
            return f"{one.model} and {first} have no set in common"
        sure = f"[{100 * one.over_sets.low:+.2f}, {100 * one.over_sets.high:+.2f}]"
        return (
            f"{one.model} - {first}: {100 * one.over_sets.value:+.2f} {sure} over {one.num_sets} sets; "
            f"{one.wins} won, {one.losses} lost, {one.ties} even"
        )


def compare(
    models: Mapping[str, Path | str],
    *,
    baseline: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """Lay result files side by side.

    Differences are paired twice: over the sets that both have (those of the 38 where there are any, else all), and on
    every set over the very queries, where both result files have theirs beside them.

    Args:
        models: name -> result file, a folder with a `results.jsonl`, or the name of a published model.
        baseline: against whom; None for the first.
        seed: of the bootstrap draws.
        resamples: their number.
        level: share of them inside an interval.

    Raises:
        ValueError: fewer than one model, an unknown baseline, a file that holds no results.
        OSError: a file that cannot be read.
    """
    if not models:
        raise ValueError("there is nothing to compare: give result files or names of published models")
    found = {name: _open(name, source) for name, source in models.items()}
    if baseline is not None and baseline not in found:
        raise ValueError(f"the baseline {baseline!r} is none of {', '.join(found)}")
    first = found.pop(baseline if baseline is not None else next(iter(found)))
    others = tuple(found.values())
    return Comparison(
        models=(first, *others),
        differences=tuple(
            _difference(model, first, seed=seed, resamples=resamples, level=level) for model in others
        ),
        level=level,
    )


def _open(name: str, source: Path | str) -> Compared:
    path = Path(source)
    if path.is_dir():
        path = path / RESULTS
    published = None if path.exists() else find_published(str(source))
    if published is not None:
        if published not in published_results():
            raise ValueError(
                f"{source} is in Table 8, but its results set by set are not published; those of "
                f"{', '.join(published_results())} are"
            )
        return Compared(name=name, rows={row.key: row for row in published_results()[published]}, path=None)
    rows = {row.key: row for row in read_rows(path)}
    if not rows:
        raise ValueError(f"{path} holds no results: give a file written by `pocketclip evaluate --tasks`")
    return Compared(name=name, rows=rows, path=path)


def _difference(model: Compared, first: Compared, *, seed: int, resamples: int, level: float) -> Difference:
    shared = [key for key in model.rows if _main(model, key) is not None and _main(first, key) is not None]
    shared = [key for key in shared if key in AVERAGED] or shared
    own = [_main(model, key) or 0.0 for key in shared]
    theirs = [_main(first, key) or 0.0 for key in shared]
    over_sets = None
    if shared:
        over_sets = bootstrap_difference(own, theirs, seed=seed, resamples=resamples, level=level)
    changes = [a - b for a, b in zip(own, theirs, strict=True)]
    return Difference(
        model=model.name,
        over_sets=over_sets,
        num_sets=len(shared),
        wins=sum(change > _SAME for change in changes),
        losses=sum(change < -_SAME for change in changes),
        of_set=_over_queries(model, first, seed=seed, resamples=resamples, level=level),
    )


def _over_queries(
    model: Compared, first: Compared, *, seed: int, resamples: int, level: float
) -> dict[str, Interval]:
    """Differences on the very same queries, where both kept them."""
    found = {}
    for key, row in model.rows.items():
        metric = row.details.get("main_metric") or (TASKS[key].main_metric if key in TASKS else None)
        paths = [queries_path(one.path, key) for one in (model, first) if one.path is not None]
        if key not in first.rows or not isinstance(metric, str) or len(paths) < 2:
            continue
        if all(path.is_file() for path in paths):
            one, other = map(read_queries, paths)
            if same_queries(one, other):
                found[key] = paired_difference(
                    metric, one, other, seed=seed, resamples=resamples, level=level
                )
    return found


def _main(model: Compared, key: str) -> float | None:
    return model.rows[key].main if key in model.rows else None


def _name(models: Sequence[Compared], key: str) -> str:
    return next(model.rows[key].dataset for model in models if key in model.rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _change(difference: Difference, key: str, first: float | None, own: float | None) -> str:
    if first is None or own is None:
        return "-"
    interval = difference.of_set.get(key)
    if interval is None:
        return f"{100 * (own - first):+.1f}"
    star = "*" if interval.low > 0 or interval.high < 0 else " "
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]{star}"


def _ends(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
