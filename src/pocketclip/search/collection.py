"""Vectors with numbers, wherever they are kept: what search needs of them, and how they move.

`VectorReader` is one that is read, `PostgresCollection` one that is written too. Where an index outgrows one machine,
its vectors are copied to a server; its pictures stay where they are.

Shapes: N vectors, D embedding, K nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


class Searchable(Protocol):
    """Unit vectors with numbers that can be searched."""

    def __len__(self) -> int:
        """How many."""
        ...

    def ids(self) -> Ids:
        """Their numbers, int64 [N], ascending."""
        ...

    def search(self, query_D: Vectors, k: int, *, among: Ids | None = None) -> tuple[Ids, Vectors]:
        """Numbers int64 [K] and cosines float32 [K] of the nearest, nearest first; `among` holds those allowed."""
        ...

    def rows(self, ids: Sequence[int]) -> Vectors:
        """Vectors float32 [N, D] with these numbers."""
        ...

    def sample(self, num: int, *, seed: int) -> Vectors:
        """At most so many, drawn without repetition, float32 [N, D]."""
        ...


class Source(Searchable, Protocol):
    """One that can be gone through."""

    def blocks(self) -> Iterator[tuple[Ids, Vectors]]:
        """All, some at a time, by number."""
        ...


class Collection(Searchable, Protocol):
    """One that can be written."""

    def add(self, ids: Sequence[int], vectors_ND: Vectors) -> None:
        """Add vectors float32 [N, D]; a number that is there gets the new vector."""
        ...

    def remove(self, ids: Sequence[int]) -> int:
        """Remove numbers; tells how many were there."""
        ...


def copy_to(collection: Collection, vectors: Source) -> tuple[int, int]:
    """Make a collection hold what an index holds; only what differs is sent.

    The vector of a number never changes in an index, so numbers are all that is compared.

    Args:
        collection: to be changed.
        vectors: of an index (`IndexReader.vectors`).

    Returns:
        How many vectors were added, and how many removed.
    """
    there = collection.ids()
    gone = np.setdiff1d(there, vectors.ids(), assume_unique=True)
    num_removed = collection.remove(gone.tolist()) if len(gone) else 0
    num_added = 0
    for ids_N, vectors_ND in vectors.blocks():
        new = ~np.isin(ids_N, there, assume_unique=True)
        if new.any():
            collection.add(ids_N[new].tolist(), vectors_ND[new])
            num_added += int(new.sum())
    return num_added, num_removed
