"""A filtering described by numbers: what each step dropped, how scores are spread, who stands for each tenth."""

# Shape suffixes: N rows of a chunk, H bins of a histogram.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pocketclip.data.sample import JsonValue
from pocketclip.filter.decide import Decision, mixed
from pocketclip.filter.scores import Pool, ScoreFile

NUM_BINS = 2000
"""Of a histogram of cosines, from -1 to 1."""
DECILES = 10


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the scores of one teacher are spread.

    Attributes:
        name: of the column.
        kept_H: rows that are kept in each of `NUM_BINS` bins from -1 to 1, int64.
        dropped_H: rows that are not.
        num_unscored: rows without a score.
    """

    name: str
    kept_H: np.ndarray = field(repr=False)
    dropped_H: np.ndarray = field(repr=False)
    num_unscored: int

    def edges(self) -> np.ndarray:
        """Scores that part the pool into tenths, to the width of a bin: float64 [9]."""
        ends_H = np.cumsum(self.kept_H + self.dropped_H)
        wanted = np.arange(1, DECILES) * ends_H[-1] / DECILES
        return np.searchsorted(ends_H, wanted) * (2.0 / NUM_BINS) - 1.0

    def to_json(self) -> dict[str, JsonValue]:
        """Occupied bins alone: the first one's lower end, the width, and counts."""
        occupied = np.flatnonzero(self.kept_H + self.dropped_H)
        low, high = (int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else (0, 0)
        return {
            "from": low * 2.0 / NUM_BINS - 1.0,
            "bin": 2.0 / NUM_BINS,
            "kept": self.kept_H[low:high].tolist(),
            "dropped": self.dropped_H[low:high].tolist(),
            "unscored": self.num_unscored,
            "deciles": [round(edge, 4) for edge in self.edges().tolist()] if len(occupied) else [],
        }


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row that stands for a tenth of the pool.

    Attributes:
        decile: from 0, the lowest scores.
        kept: whether it is.
        file: it is in.
        row: its number there.
        score: its own.
        dropped_by: number of the step that dropped it, from 1; 0 where it is kept.
    """

    decile: int
    kept: bool
    file: ScoreFile
    row: int
    score: float
    dropped_by: int


def spreads(pool: Pool, decision: Decision) -> list[Spread]:
    """One for every score of the pool."""
    names = [name for name in pool.columns() if name.startswith("score/")]
    counts = {name: np.zeros((2, NUM_BINS), np.int64) for name in names}
    unscored = dict.fromkeys(names, 0)
    for chunk in pool.chunks(names) if names else ():
        kept_N = decision.times_N[chunk.rows] > 0
        for name in names:
            value_N = chunk.columns[name]
            known_N = ~np.isnan(value_N)
            unscored[name] += int((~known_N).sum())
            bin_N = _bins(value_N[known_N])
            for side, rows_N in enumerate((kept_N[known_N], ~kept_N[known_N])):
                counts[name][side] += np.bincount(bin_N[rows_N], minlength=NUM_BINS)
    return [
        Spread(name=name, kept_H=kept_H, dropped_H=dropped_H, num_unscored=unscored[name])
        for name, (kept_H, dropped_H) in counts.items()
    ]


def choose_examples(pool: Pool, decision: Decision, spread: Spread, *, num: int, seed: int) -> list[Example]:
    """`num` rows of each tenth that are kept, and as many that are dropped: those with the smallest hashes."""
    edges = spread.edges()
    best: dict[tuple[int, bool], list[tuple[int, Example]]] = {}
    for chunk in pool.chunks([spread.name, "id"]) if num else ():
        value_N = chunk.columns[spread.name]
        decile_N = np.searchsorted(edges, value_N, side="right")
        kept_N = decision.times_N[chunk.rows] > 0
        order_N = mixed(chunk.columns["id"], seed=seed)
        for decile in range(DECILES):
            for kept in (True, False):
                rows = np.flatnonzero((decile_N == decile) & (kept_N == kept) & ~np.isnan(value_N))
                first = rows[np.argsort(order_N[rows], kind="stable")[:num]]
                found = [
                    (
                        int(order_N[row]),
                        Example(
                            decile=decile,
                            kept=kept,
                            file=chunk.file,
                            row=row,
                            score=float(value_N[row]),
                            dropped_by=int(decision.dropped_by_N[chunk.file.first + row]),
                        ),
                    )
                    for row in first.tolist()
                ]
                both = sorted([*best.get((decile, kept), []), *found], key=lambda pair: pair[0])
                best[decile, kept] = both[:num]
    return [example for _, group in sorted(best.items()) for _, example in group]


def report_json(
    pool: Pool, decision: Decision, spread: Sequence[Spread], *, config: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """The report as JSON values."""
    steps: list[JsonValue] = [
        {
            "name": step.name,
            "dropped": step.num_dropped,
            "failing": step.num_failing,
            **{name: value if np.isfinite(value) else None for name, value in step.facts.items()},
        }
        for step in decision.steps
    ]
    return {
        "num_samples": pool.num_rows,
        "num_kept": decision.num_kept,
        "num_distinct": int((decision.times_N > 0).sum()),
        "steps": steps,
        "scores": {one.name: one.to_json() for one in spread},
        "config": dict(config),
    }


def _bins(value_N: np.ndarray) -> np.ndarray:
    return np.clip(((value_N.astype(np.float64) + 1.0) * (NUM_BINS / 2)).astype(np.int64), 0, NUM_BINS - 1)
