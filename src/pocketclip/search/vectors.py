"""Vectors on disk, a slot each, memory-mapped; and the search among them.

Few are compared one by one. Among many, a first pass (`firstpass.py`) names candidates, which are compared then.

Shapes: N items, S slots, D embedding, F bytes of scale and low bits, K nearest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pocketclip.data.publish import flush_to_disk
from pocketclip.search import encoding
from pocketclip.search.firstpass import FirstPass, load_first_pass
from pocketclip.search.schema import FINE_FILE, VECTORS_FILE

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

_BLOCK = 16_384  # rows at a time, where all are wanted
_FEW = 1_024  # rows that are not worth a second thread
_SPARSE = 4  # a filter that lets through less than one in so many items is compared one by one


class VectorWriter:
    """Writes rows into slots; nothing refers to a slot before its row is on the disk."""

    def __init__(self, folder: Path, *, rotation_DD: Vectors) -> None:
        """Open, or begin, the files of an index.

        Args:
            folder: of the index.
            rotation_DD: that all its vectors have.
        """
        self._rotation_DD = rotation_DD
        self._files = [
            os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644) for name in (VECTORS_FILE, FINE_FILE)
        ]

    def write(self, slots: Sequence[int], vectors_ND: Vectors) -> None:
        """Put unit vectors float32 [N, D] into slots [N], and wait until they are on the disk.

        Raises:
            OSError: the disk is full, or fails.
        """
        parts = encoding.encode(vectors_ND @ self._rotation_DD.T)
        for number, part in zip(self._files, parts, strict=True):
            for begin, end in _runs(slots):
                _write_all(number, part[begin:end].tobytes(), at=slots[begin] * part.shape[1])
            flush_to_disk(number)

    def close(self) -> None:
        """Lets go of the files."""
        for number in self._files:
            os.close(number)


def _runs(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Stretches of slots that follow each other."""
    begin = 0
    for end in range(1, len(slots) + 1):
        if end == len(slots) or slots[end] != slots[end - 1] + 1:
            yield begin, end
            begin = end


def _write_all(number: int, data: bytes, *, at: int) -> None:
    while data:
        written = os.pwrite(number, data, at)
        data, at = data[written:], at + written


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happened to an index since some state of it.

    Attributes:
        generation: of the index now.
        ids: new items, ascending; all of them larger than those before.
        slots: theirs.
        gone: items that were removed.
    """

    generation: int
    ids: Ids
    slots: Ids
    gone: Ids


class Changes(Protocol):
    """Tells how an index differs from what a reader knows."""

    def __call__(self, *, since: int, last_id: int) -> Change | None:
        """None where nothing has changed since that generation; -1 asks for everything."""
        ...


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a reader knows of one generation; row n of all arrays is the same item, by ascending number."""

    generation: int
    ids_N: Ids
    slots_N: Ids
    scale_N: Vectors
    high_SD: npt.NDArray[np.int8]
    fine_SF: npt.NDArray[np.uint8]
    first: FirstPass | None

    @cached_property
    def in_order(self) -> bool:
        """Whether row n lies in slot n, as when nothing was ever removed."""
        return bool((self.slots_N == np.arange(len(self.slots_N))).all())

    @cached_property
    def row_of_id(self) -> npt.NDArray[np.int32]:
        """The row of each number up to the largest; -1 where there is no such item."""
        rows = np.full(_last(self.ids_N) + 1, -1, dtype=np.int32)
        rows[self.ids_N] = np.arange(len(self.ids_N), dtype=np.int32)
        return rows

    def rows_of(self, ids: Ids) -> npt.NDArray[np.int64]:
        """Rows of those of some items that are there; `ids` and rows ascend."""
        rows_N = self.row_of_id[ids[: np.searchsorted(ids, len(self.row_of_id))]]
        return rows_N[rows_N >= 0].astype(np.int64)

    @cached_property
    def row_of_position(self) -> npt.NDArray[np.int64]:
        """The row of each position of the first pass; -1 where the item is gone."""
        assert self.first is not None
        return _find(self.ids_N, self.first.ids)

    @cached_property
    def first_row_after(self) -> int:
        """Rows from here on are not in the first pass."""
        assert self.first is not None
        return int(np.searchsorted(self.ids_N, self.first.last_id, side="right"))


class VectorReader:
    """The vectors of an index, as they are at the moment of each question. Any number of threads may ask."""

    def __init__(
        self, folder: Path, *, rotation_DD: Vectors, changes: Changes, threads: int | None = None
    ) -> None:
        """Open the vectors of an index; `IndexReader.vectors` does it.

        Args:
            folder: of the index.
            rotation_DD: that all its vectors have.
            changes: tells what is new.
            threads: that compare; None for one per core.
        """
        self._folder = folder
        self._rotation_DD = rotation_DD
        self._changes = changes
        self._threads = threads or os.cpu_count() or 1
        self._lock = threading.Lock()
        self._known: _State | None = None

    def __len__(self) -> int:
        """Number of items."""
        return len(self._state().ids_N)

    def search(self, query_D: Vectors, k: int, *, among: Ids | None = None) -> tuple[Ids, Vectors]:
        """The k items nearest to a unit vector, nearest first, ties by number.

        Args:
            query_D: float32 [D], length 1.
            k: most items, at least 1.
            among: only these items, int64, ascending; None for all. Numbers of items that are gone are ignored.

        Returns:
            Item numbers int64 [K], cosines float32 [K], with K = min(k, items).

        Raises:
            ValueError: k below 1, or a query of another width.
        """
        self._check(query_D, k)
        state = self._state()
        turned_D = self._rotation_DD @ query_D.astype(np.float32, copy=False)
        allowed_N = None if among is None else state.rows_of(among)
        query, most = encoding.scan(turned_D), _with_margin(k)

        def best_of(some: Callable[[], npt.NDArray[np.int64] | slice]) -> tuple[Ids, Vectors]:
            return _best(state, query, some(), most)

        jobs = self._jobs(state, turned_D, k, allowed_N)
        found = [best_of(job) for job in jobs] if len(jobs) < 2 else list(self._pool.map(best_of, jobs))
        rows_N = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in found)])
        about_N = np.concatenate([np.empty(0, np.float32), *(about for _, about in found)])
        near = np.sort(rows_N[top(about_N, most)])
        # not a matrix product: equal rows are to have equal cosines, to the last bit
        cosine_N = (self._vectors(state, near) * turned_D).sum(axis=1)
        best = top(cosine_N, k)
        return state.ids_N[near[best]], cosine_N[best]

    def ids(self) -> Ids:
        """Numbers of all items, int64 [N], ascending."""
        return self._state().ids_N

    def rows(self, ids: Sequence[int]) -> Vectors:
        """Vectors of items, float32 [N, D], length 1.

        Raises:
            ValueError: an item is not there.
        """
        state = self._state()
        wanted = np.asarray(ids, dtype=np.int64).reshape(-1)
        found = _find(state.ids_N, wanted)
        if (found < 0).any():
            raise ValueError(f"{self._folder} has no item {wanted[found < 0][0]}")
        return self._vectors(state, found) @ self._rotation_DD

    def sample(self, num: int, *, seed: int) -> Vectors:
        """At most `num` vectors drawn without repetition, float32 [N, D]."""
        return self.turned_sample(num, seed=seed) @ self._rotation_DD

    def turned_sample(self, num: int, *, seed: int) -> Vectors:
        """Like `sample`, as the vectors are stored: rotated."""
        state = self._state()
        num = min(num, len(state.ids_N))
        drawn = np.random.default_rng(seed).choice(len(state.ids_N), size=num, replace=False)
        return self._vectors(state, np.sort(drawn))

    def blocks(self) -> Iterator[tuple[Ids, Vectors]]:
        """All items, by number: numbers int64 [N], vectors float32 [N, D], some thousands at a time."""
        for ids_N, vectors_ND in self.turned_blocks():
            yield ids_N, vectors_ND @ self._rotation_DD

    def turned_blocks(self, *, after: int = 0) -> Iterator[tuple[Ids, Vectors]]:
        """Like `blocks`, from an item's number on, as the vectors are stored: rotated."""
        state = self._state()
        start = int(np.searchsorted(state.ids_N, after, side="right"))
        for begin in range(start, len(state.ids_N), _BLOCK):
            some = np.arange(begin, min(begin + _BLOCK, len(state.ids_N)))
            yield state.ids_N[some], self._vectors(state, some)

    @property
    def first_pass(self) -> FirstPass | None:
        """What names candidates; None where all are compared."""
        return self._state().first

    def _check(self, query_D: Vectors, k: int) -> None:
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least 1 picture")
        if query_D.shape != self._rotation_DD.shape[:1]:
            raise ValueError(
                f"the query has the shape {query_D.shape}, and the vectors of this index have "
                f"{len(self._rotation_DD)} numbers: embed it with the index's model"
            )

    def _jobs(
        self, state: _State, turned_D: Vectors, k: int, allowed_N: npt.NDArray[np.int64] | None
    ) -> list[Callable[[], npt.NDArray[np.int64] | slice]]:
        """Shares of the work, for the threads: each gives rows that are to be compared, ascending."""
        first, num = state.first, len(state.ids_N)
        if first is None or (allowed_N is not None and len(allowed_N) * _SPARSE < num):
            return self._stretches(allowed_N, 0, num)
        keep_N: npt.NDArray[np.bool_] | None = None
        if allowed_N is not None:
            keep_N = np.zeros(num, dtype=bool)
            keep_N[allowed_N] = True
        share = 1.0 if allowed_N is None else len(allowed_N) / num
        begins = np.cumsum([0, *(len(part.ids_P) for part in first.parts)])

        def candidates(number: int) -> npt.NDArray[np.int64]:
            positions = first.candidates(number, turned_D, k, share=share)
            rows_N = state.row_of_position[positions + begins[number]]
            rows_N = np.sort(rows_N[rows_N >= 0])
            return rows_N if keep_N is None else rows_N[keep_N[rows_N]]

        late = state.first_row_after
        allowed = None if allowed_N is None else allowed_N[allowed_N >= late]
        return [
            *(partial(candidates, number) for number in range(len(first.parts))),
            *self._stretches(allowed, late, num),
        ]

    def _stretches(
        self, allowed_N: npt.NDArray[np.int64] | None, begin: int, end: int
    ) -> list[Callable[[], npt.NDArray[np.int64] | slice]]:
        """All rows of a stretch, or the allowed ones of it, cut for the threads."""
        if allowed_N is not None:
            begin, end = 0, len(allowed_N)
        step = max(_FEW, min(_BLOCK, -(-(end - begin) // self._threads)))
        spans = [slice(at, min(at + step, end)) for at in range(begin, end, step)]
        if allowed_N is not None:
            return [partial(allowed_N.__getitem__, span) for span in spans]
        return [partial(slice, span.start, span.stop) for span in spans]

    def _vectors(self, state: _State, rows_N: npt.NDArray[np.int64] | npt.NDArray[np.intp]) -> Vectors:
        """Rotated vectors of rows."""
        slots = state.slots_N[rows_N]
        return encoding.decode(state.high_SD[slots], state.fine_SF[slots])

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="compare")

    def _state(self) -> _State:
        known = self._known
        change = self._changes(
            since=-1 if known is None else known.generation, last_id=_last(known.ids_N) if known else 0
        )
        if known is not None and change is None:
            return known
        with self._lock:
            if self._known is not known:  # another thread was first
                known = self._known
                change = self._changes(
                    since=-1 if known is None else known.generation,
                    last_id=_last(known.ids_N) if known else 0,
                )
            if change is not None:
                self._known = self._changed(known, change)
            assert self._known is not None
            return self._known

    def _changed(self, known: _State | None, change: Change) -> _State:
        ids_N, slots_N = change.ids, change.slots
        high_SD, fine_SF = self._mapped(int(slots_N.max(initial=-1)) + 1, known)
        scale_N = encoding.scales(fine_SF[slots_N])
        if known is not None:
            ids_N = np.concatenate([known.ids_N, ids_N])
            slots_N = np.concatenate([known.slots_N, slots_N])
            scale_N = np.concatenate([known.scale_N, scale_N])
        if len(change.gone):
            stays = ~np.isin(ids_N, change.gone)
            ids_N, slots_N, scale_N = ids_N[stays], slots_N[stays], scale_N[stays]
        return _State(
            generation=change.generation,
            ids_N=ids_N,
            slots_N=slots_N,
            scale_N=scale_N,
            high_SD=high_SD,
            fine_SF=fine_SF,
            first=load_first_pass(self._folder, known=known.first if known else None),
        )

    def _mapped(
        self, num_slots: int, known: _State | None
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.uint8]]:
        if known is not None and len(known.high_SD) >= num_slots:
            return known.high_SD, known.fine_SF
        widths = (len(self._rotation_DD), encoding.fine_width(len(self._rotation_DD)))
        sizes = []
        for name, width in zip((VECTORS_FILE, FINE_FILE), widths, strict=True):
            path = self._folder / name
            sizes.append(path.stat().st_size // width if path.is_file() else 0)
            if sizes[-1] < num_slots:
                raise ValueError(
                    f"{path} was cut ({sizes[-1]} of {num_slots} vectors): remove {self._folder} and index the "
                    f"pictures again"
                )
        num = min(sizes)
        if not num:
            return np.empty((0, widths[0]), np.int8), np.empty((0, widths[1]), np.uint8)
        high = np.memmap(self._folder / VECTORS_FILE, np.int8, "r", shape=(num, widths[0]))
        fine = np.memmap(self._folder / FINE_FILE, np.uint8, "r", shape=(num, widths[1]))
        return np.asarray(high), np.asarray(fine)


def _best(
    state: _State, query: encoding.Scan, some: npt.NDArray[np.int64] | slice, most: int
) -> tuple[npt.NDArray[np.int64], Vectors]:
    """Of some rows, those that are about the nearest, ascending, and about their cosines."""
    if isinstance(some, slice):
        rows_N = np.arange(some.start, some.stop)
        high = state.high_SD[some] if state.in_order else state.high_SD.take(state.slots_N[some], axis=0)
    else:
        rows_N, high = some, state.high_SD.take(state.slots_N[some], axis=0)
    about_N = query.cosines(high, state.scale_N[some]) if len(rows_N) else np.empty(0, np.float32)
    best = np.sort(top(about_N, most))
    return rows_N[best], about_N[best]


def _last(ids_N: Ids) -> int:
    return int(ids_N[-1]) if len(ids_N) else 0


def _find(ids_N: Ids, wanted: Ids) -> npt.NDArray[np.int64]:
    """The row of each wanted item; -1 for those that are not there."""
    if not len(ids_N):
        return np.full(len(wanted), -1, dtype=np.int64)
    found = np.minimum(np.searchsorted(ids_N, wanted), len(ids_N) - 1)
    return np.where(ids_N[found] == wanted, found, -1)


def _with_margin(k: int) -> int:
    """So many are compared to the last bit, for k."""
    return k + k // 4 + 64


def top(score_N: Vectors, k: int) -> npt.NDArray[np.intp]:
    """Places of the k largest scores, largest first, ties in order."""
    if k >= len(score_N):
        return np.argsort(-score_N, kind="stable")
    least = np.partition(score_N, -k)[-k]
    candidates = np.flatnonzero(score_N >= least)
    return candidates[np.argsort(-score_N[candidates], kind="stable")][:k]
