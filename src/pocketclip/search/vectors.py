"""Vectors on disk, a slot each: int8 rows that are memory-mapped, and the search among them.

Shapes: N items, S slots, D embedding, K nearest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketclip.data.publish import flush_to_disk

VECTORS_FILE = "vectors.i8"

_BLOCK = 16_384  # rows at a time, where all are wanted


def quantised(vectors_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Rows int8 [N, D]: the largest magnitude of each row becomes 127. Their length is lost; unit rows need none."""
    largest_N1 = np.abs(vectors_ND).max(axis=1, keepdims=True)
    return np.rint(vectors_ND * (127 / np.maximum(largest_N1, 1e-30))).astype(np.int8)


def unit_rows(rows_ND: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """The vectors that int8 rows stand for, float32 [N, D], length 1."""
    vectors_ND = rows_ND.astype(np.float32)
    length_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.maximum(length_N1, 1e-30)


class VectorWriter:
    """Writes rows into slots; nothing refers to a slot before its row is on the disk."""

    def __init__(self, folder: Path, *, embed_dim: int) -> None:
        """Open, or begin, the file of an index.

        Args:
            folder: of the index.
            embed_dim: D.
        """
        self._embed_dim = embed_dim
        self._number = os.open(folder / VECTORS_FILE, os.O_RDWR | os.O_CREAT, 0o644)

    @property
    def num_slots(self) -> int:
        """Whole rows in the file."""
        return os.fstat(self._number).st_size // self._embed_dim

    def write(self, slots: Sequence[int], vectors_ND: npt.NDArray[np.float32]) -> None:
        """Put unit vectors float32 [N, D] into slots [N], and wait until they are on the disk.

        Raises:
            OSError: the disk is full, or fails.
        """
        rows_ND = quantised(vectors_ND)
        for slot, row in zip(slots, rows_ND, strict=True):
            data = row.tobytes()
            while data:
                written = os.pwrite(self._number, data, (slot + 1) * self._embed_dim - len(data))
                data = data[written:]
        flush_to_disk(self._number)

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._number)


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a reader knows of one generation."""

    generation: int
    ids_N: npt.NDArray[np.int64]
    slots_N: npt.NDArray[np.int64]
    rows_SD: npt.NDArray[np.int8]
    vectors_ND: npt.NDArray[np.float32]


class VectorReader:
    """The vectors of an index, as they are at the moment of each question. Any number of threads may ask."""

    def __init__(
        self,
        folder: Path,
        *,
        embed_dim: int,
        generation: Callable[[], int],
        slots: Callable[[], tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    ) -> None:
        """Open the vectors of an index; `IndexReader.vectors` does it.

        Args:
            folder: of the index.
            embed_dim: D.
            generation: tells whether anything has changed.
            slots: generation, item numbers [N] ascending, their slots [N].
        """
        self._path = folder / VECTORS_FILE
        self._embed_dim = embed_dim
        self._generation = generation
        self._slots = slots
        self._lock = threading.Lock()
        self._known: _State | None = None

    def __len__(self) -> int:
        """Number of items."""
        return len(self._state().ids_N)

    def search(
        self, query_D: npt.NDArray[np.float32], k: int, *, among: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
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
        query_D = self._checked(query_D, k)
        state = self._state()
        rows = np.arange(len(state.ids_N)) if among is None else _positions(state.ids_N, among)
        vectors_ND = state.vectors_ND if among is None else state.vectors_ND[rows]
        score_N = vectors_ND @ query_D
        best = top(score_N, k)
        return state.ids_N[rows[best]], score_N[best]

    def rows(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Vectors of items, float32 [N, D], length 1.

        Raises:
            ValueError: an item is not there.
        """
        state = self._state()
        wanted = np.asarray(ids, dtype=np.int64).reshape(-1)
        where = np.searchsorted(state.ids_N, wanted)
        there = where < len(state.ids_N)
        there[there] = state.ids_N[where[there]] == wanted[there]
        if not there.all():
            raise ValueError(f"{self._path.parent} has no item {wanted[~there][0]}")
        return state.vectors_ND[where]

    def sample(self, num: int, *, seed: int) -> npt.NDArray[np.float32]:
        """At most `num` vectors drawn without repetition, float32 [N, D]."""
        state = self._state()
        drawn = np.random.default_rng(seed).choice(
            len(state.ids_N), size=min(num, len(state.ids_N)), replace=False
        )
        return state.vectors_ND[np.sort(drawn)]

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """All items, by number: numbers int64 [N], vectors float32 [N, D], some thousands at a time."""
        state = self._state()
        for begin in range(0, len(state.ids_N), _BLOCK):
            yield state.ids_N[begin : begin + _BLOCK], state.vectors_ND[begin : begin + _BLOCK]

    def _checked(self, query_D: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least 1 picture")
        if query_D.shape != (self._embed_dim,):
            raise ValueError(
                f"the query has the shape {query_D.shape}, and the vectors of this index have {self._embed_dim} "
                f"numbers: embed it with the index's model"
            )
        return np.ascontiguousarray(query_D, dtype=np.float32)

    def _state(self) -> _State:
        known = self._known
        if known is not None and known.generation == self._generation():
            return known
        with self._lock:
            if self._known is None or self._known.generation != self._generation():
                self._known = self._read()
            return self._known

    def _read(self) -> _State:
        generation, ids_N, slots_N = self._slots()
        num_slots = self._path.stat().st_size // self._embed_dim if self._path.is_file() else 0
        if len(slots_N) and int(slots_N.max()) >= num_slots:
            raise ValueError(
                f"{self._path} was cut ({num_slots} of {int(slots_N.max()) + 1} vectors): remove the index and "
                f"index the pictures again"
            )
        shape = (num_slots, self._embed_dim)
        rows_SD = np.memmap(self._path, np.int8, "r", shape=shape) if num_slots else np.empty(shape, np.int8)
        return _State(
            generation=generation,
            ids_N=ids_N,
            slots_N=slots_N,
            rows_SD=rows_SD,
            vectors_ND=unit_rows(rows_SD[slots_N]),
        )


def _positions(ids_N: npt.NDArray[np.int64], among: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Where the allowed items stand among all."""
    return np.flatnonzero(np.isin(ids_N, among, assume_unique=True))


def top(score_N: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.intp]:
    """Places of the k largest scores, largest first, ties in order."""
    if k >= len(score_N):
        return np.argsort(-score_N, kind="stable")
    least = np.partition(score_N, -k)[-k]
    candidates = np.flatnonzero(score_N >= least)
    return candidates[np.argsort(-score_N[candidates], kind="stable")][:k]
