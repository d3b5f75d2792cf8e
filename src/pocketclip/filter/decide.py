"""What is kept of a pool: rule by rule, one byte a row, whatever the number of its files."""

# Shape suffixes: N rows of the pool or of a chunk, K rows still kept, D dimensions.

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pocketclip.data.codec import PlainTable, decode
from pocketclip.data.tables import read_tables
from pocketclip.filter.config import ClusterFile, Duplicates, FilterConfig, Top
from pocketclip.filter.duplicates import near_embeddings, near_hashes
from pocketclip.filter.mix import shares
from pocketclip.filter.rules import DERIVED, Clusters, derived
from pocketclip.filter.scores import Chunk, Pool, embedding, open_tables
from pocketclip.filter.select import Rows, Taker, top

_MOST_STEPS = 250
_MOST_TIMES = 255


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step of the decision did.

    Attributes:
        name: the rule, as it is written.
        num_dropped: rows that had met every step before.
        num_failing: rows of the whole pool that do not meet it; None where it looks only at what is left.
        facts: of cuts, the value.
    """

    name: str
    num_dropped: int
    num_failing: int | None = None
    facts: dict[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is kept.

    Attributes:
        steps: in order.
        dropped_by_N: uint8 [N], number of the step that dropped each row, from 1; 0: it is kept.
        times_N: uint8 [N], how often each row is kept: 0, 1, or more in a mixture with repetition.
    """

    steps: tuple[Step, ...]
    dropped_by_N: np.ndarray
    times_N: np.ndarray

    @property
    def num_kept(self) -> int:
        """Rows, repetitions included."""
        return int(self.times_N.sum(dtype=np.int64))


def decide(pool: Pool, config: FilterConfig) -> Decision:
    """Goes through the pool, once for all rules and a few times for each cut.

    Raises:
        ValueError: a column is not there; a mixture cannot be made; nothing is kept.
    """
    decider = _Decider(pool, config)
    decider.rules()
    if config.clusters is not None:
        decider.clusters(config.clusters)
    for duplicates in config.duplicates:
        decider.duplicates(duplicates)
    # Cuts of what is left all look at the same rows, so that their order does not matter.
    left_N = decider.dropped_by_N == 0 if any(one.of == "kept" for one in config.tops) else None
    for one in config.tops:
        decider.cut(one, left_N=left_N)
    if config.weights:
        decider.mix()
    elif config.samples is not None:
        decider.subset(config.samples)
    decision = decider.decision()
    if not decision.num_kept:
        raise ValueError(f"nothing of the {pool.num_rows} samples is kept; {_counted(decision.steps)}")
    return decision


def _counted(steps: Sequence[Step]) -> str:
    return ", ".join(f"{step.name} dropped {step.num_dropped}" for step in steps)


def mixed(ids_N: np.ndarray, *, seed: int) -> np.ndarray:
    """Other numbers for the numbers of keys, uint64: by which uniform subsets are drawn (splitmix64)."""
    salt = int.from_bytes(hashlib.sha256(f"pocketclip subset {seed}".encode()).digest()[:8])
    number_N = ids_N ^ np.uint64(salt)
    with np.errstate(over="ignore"):
        number_N = (number_N ^ number_N >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        number_N = (number_N ^ number_N >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return number_N ^ number_N >> np.uint64(31)


class _Decider:
    """A decision being made."""

    def __init__(self, pool: Pool, config: FilterConfig) -> None:
        self._pool = pool
        self._config = config
        self._steps: list[Step] = []
        self.dropped_by_N = np.zeros(pool.num_rows, np.uint8)
        self._times_N: np.ndarray | None = None

    def decision(self) -> Decision:
        times_N = self._times_N
        if times_N is None:
            times_N = (self.dropped_by_N == 0).astype(np.uint8)
        return Decision(steps=tuple(self._steps), dropped_by_N=self.dropped_by_N, times_N=times_N)

    def rules(self) -> None:
        """Every rule in one pass."""
        rules = self._config.rules
        if not rules:
            return
        assert len(rules) < _MOST_STEPS
        dropped, failing = [0] * len(rules), [0] * len(rules)
        needs = list(dict.fromkeys(name for rule in rules for name in rule.needs))
        for chunk in self._pool.chunks(needs):
            own_N = self.dropped_by_N[chunk.rows]
            for place, rule in enumerate(rules):
                fails_N = ~rule.keeps(chunk.columns)
                failing[place] += int(fails_N.sum())
                fails_N &= own_N == 0
                dropped[place] += int(fails_N.sum())
                own_N[fails_N] = len(self._steps) + place + 1
        self._steps += [
            Step(name=rule.name, num_dropped=gone, num_failing=fails)
            for rule, gone, fails in zip(rules, dropped, failing, strict=True)
        ]

    def clusters(self, file: ClusterFile) -> None:
        """Drops pictures whose nearest centroid is not wanted."""
        clusters = _read_clusters(Path(file.path))

        def dropped() -> Iterator[tuple[slice, np.ndarray]]:
            for one in self._pool.files:
                with open_tables(one.path) as tables:
                    table = embedding(tables, file.teacher, file=one)
                    width = clusters.centroids_KD.shape[1]
                    image_ND = decode(table, np.arange(one.num_rows), embed_dim=width)
                yield slice(one.first, one.first + one.num_rows), ~clusters.keeps(image_ND)

        self._drop(f"clusters of {Path(file.path).name}", dropped(), counts_all=True)

    def duplicates(self, duplicates: Duplicates) -> None:
        """Drops rows near which a better one is, among those that are left."""
        column = self._best_column()
        left_N = self.dropped_by_N == 0
        names = list(dict.fromkeys([column, "id", "phash", "width"]))
        if duplicates.teacher is not None:
            names.remove("phash")
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for chunk in self._pool.chunks(names):
            left_N[chunk.rows] &= chunk.columns["width"] > 0
            for name in names:
                parts[name].append(chunk.columns[name][left_N[chunk.rows]])
        columns = {name: np.concatenate(found) for name, found in parts.items()}
        value_K = -np.nan_to_num(columns[column].astype(np.float64), nan=-np.inf)
        rank_K = np.empty(len(value_K), np.int64)
        rank_K[np.lexsort((columns["id"], value_K))] = np.arange(len(value_K))
        at_K = np.flatnonzero(left_N)
        if duplicates.teacher is None:
            assert duplicates.bits is not None
            near_K = near_hashes(columns["phash"], rank_K, bits=duplicates.bits)
        else:
            near_K = self._near_embeddings(duplicates, at_K, rank_K)
        gone_N = np.zeros(self._pool.num_rows, bool)
        gone_N[at_K[near_K]] = True
        self._drop(f"duplicates {duplicates.name}", [(slice(0, len(gone_N)), gone_N)], counts_all=False)

    def cut(self, one: Top, *, left_N: np.ndarray | None) -> None:
        """Drops what is below the largest values of a column."""
        hidden = left_N if one.of == "kept" else None

        def rows() -> Iterator[tuple[Chunk, Rows]]:
            for chunk in self._pool.chunks([*dict.fromkeys([*_needs(one.column), "id"])]):
                values_N = derived(one.column, chunk.columns).astype(np.float32)
                if hidden is not None:
                    values_N = np.where(hidden[chunk.rows], values_N, np.float32(np.nan))
                yield chunk, Rows(values_N=values_N, ids_N=chunk.columns["id"])

        num_rows = self._pool.num_rows if hidden is None else int(hidden.sum())
        cut = top(lambda: (found for _, found in rows()), one.num(num_rows))
        taker = Taker(cut)
        dropped = ((chunk.rows, ~taker.take(found)) for chunk, found in rows())
        facts = {"cut": cut.value, "taken": cut.num_taken, "valued": cut.num_valued}
        self._drop(one.name, dropped, counts_all=hidden is None, facts=facts if cut.num_taken else {})

    def subset(self, num: int) -> None:
        """Keeps so many of what is left, each as likely as another."""
        taken_N = self._drawn(num, lambda _: True)
        if taken_N is None:
            raise ValueError(f"{num} samples are asked for, and {(self.dropped_by_N == 0).sum()} are left")
        self._drop(f"uniform subset of {num}", [(slice(0, len(taken_N)), ~taken_N)], counts_all=False)

    def mix(self) -> None:
        """Takes from each pool its share."""
        weights, folders = self._config.weights, self._pool.folders
        if len(weights) != len(folders):
            raise ValueError(f"{len(weights)} weights for {len(folders)} pools: give one for each")
        left = [0] * len(folders)
        for file in self._pool.files:
            rows = slice(file.first, file.first + file.num_rows)
            left[file.pool] += int((self.dropped_by_N[rows] == 0).sum())
        wanted = shares(weights, left=left, num=self._config.samples, repeat=self._config.repeat)
        self._times_N = np.zeros(self._pool.num_rows, np.uint8)
        for number, (num, have) in enumerate(zip(wanted, left, strict=True)):
            rounds, rest = divmod(num, have) if have else (0, 0)
            if rounds + (rest > 0) > _MOST_TIMES:
                raise ValueError(
                    f"{folders[number]}: {have} samples cannot make {num}, at most 255 times each"
                )
            for file in self._pool.files:
                if file.pool == number:
                    rows = slice(file.first, file.first + file.num_rows)
                    self._times_N[rows][self.dropped_by_N[rows] == 0] = rounds
            drawn_N = self._drawn(rest, lambda pool, number=number: pool == number)
            assert drawn_N is not None
            self._times_N[drawn_N] += 1
        gone_N = self._times_N == 0
        ratio = ":".join(f"{weight:g}" for weight in weights)
        self._drop(
            f"mixture {ratio}",
            [(slice(0, len(gone_N)), gone_N)],
            counts_all=False,
            facts={folder.name: num for folder, num in zip(folders, wanted, strict=True)},
        )

    def _drawn(self, num: int, of_pool: Callable[[int], bool]) -> np.ndarray | None:
        """`num` of the rows that are left in some pools, bool [N]; None where there are fewer."""

        def rows() -> Iterator[tuple[slice, Rows]]:
            for chunk in self._pool.chunks(["id"]):
                free_N = self.dropped_by_N[chunk.rows] == 0
                if not of_pool(chunk.file.pool):
                    free_N[:] = False
                ids_N = mixed(chunk.columns["id"], seed=self._config.seed)
                yield (
                    chunk.rows,
                    Rows(values_N=np.where(free_N, 0, np.nan).astype(np.float32), ids_N=ids_N),
                )

        cut = top(lambda: (found for _, found in rows()), num)
        if cut.num_taken < num:
            return None
        taker = Taker(cut)
        taken_N = np.zeros(self._pool.num_rows, bool)
        for where, found in rows():
            taken_N[where] = taker.take(found)
        return taken_N

    def _drop(
        self,
        name: str,
        dropped: Iterator[tuple[slice, np.ndarray]] | list[tuple[slice, np.ndarray]],
        *,
        counts_all: bool,
        facts: dict[str, float | int] | None = None,
    ) -> None:
        """One more step, which drops these rows."""
        number, gone, failing = len(self._steps) + 1, 0, 0
        assert number < _MOST_STEPS
        for where, fails_N in dropped:
            own_N = self.dropped_by_N[where]
            failing += int(fails_N.sum())
            fails_N = fails_N & (own_N == 0)
            gone += int(fails_N.sum())
            own_N[fails_N] = number
        self._steps.append(
            Step(name=name, num_dropped=gone, num_failing=failing if counts_all else None, facts=facts or {})
        )

    def _best_column(self) -> str:
        if self._config.best is not None:
            return self._config.best
        if self._config.tops:
            return self._config.tops[0].column
        scores = [name for name in self._pool.columns() if name.startswith("score/")]
        return scores[0] if scores else "width"

    def _near_embeddings(self, duplicates: Duplicates, at_K: np.ndarray, rank_K: np.ndarray) -> np.ndarray:
        assert duplicates.teacher is not None
        starts = np.array([file.first for file in self._pool.files])
        with ExitStack() as stack:
            tables: list[PlainTable] = []
            width = 0
            for file in self._pool.files:
                opened = stack.enter_context(open_tables(file.path))
                tables.append(embedding(opened, duplicates.teacher, file=file))
                width = opened[f"embedding/{duplicates.teacher}/values"].array.shape[1]

            def rows_of(rows: np.ndarray) -> np.ndarray:
                place_B = at_K[rows]
                file_B = np.searchsorted(starts, place_B, side="right") - 1
                out_BD = np.empty((len(rows), width), np.float32)
                for number in np.unique(file_B).tolist():
                    mine = np.flatnonzero(file_B == number)
                    tables[number].decode_into(out_BD, mine, place_B[mine] - starts[number])
                return out_BD / np.maximum(np.linalg.norm(out_BD, axis=1, keepdims=True), 1e-12)

            return near_embeddings(rows_of, rank_K, width=width, cosine=duplicates.cosine)


def _needs(column: str) -> tuple[str, ...]:
    return DERIVED.get(column, (column,))


def _read_clusters(path: Path) -> Clusters:
    try:
        tables = read_tables(memoryview(path.read_bytes()))
        centroids, wanted = tables["centroids"].array, tables["wanted"].array
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is no file of clusters ({error}): see docs/filter.md") from None
    if centroids.ndim != 2 or centroids.dtype != np.float32 or wanted.ndim != 1:
        raise ValueError(f"{path}: centroids must be float32 [K, D] and wanted a list: see docs/filter.md")
    length = np.linalg.norm(centroids, axis=1, keepdims=True)
    if not np.isfinite(length).all() or math.isclose(float(length.min(initial=1.0)), 0.0):
        raise ValueError(f"{path}: a centroid has no direction")
    return Clusters(centroids_KD=centroids / length, wanted=frozenset(wanted.tolist()))
