"""Candidates among many vectors: a product quantiser of one bit a number, scanned whole by faiss.

Product quantisation (Jégou et al., IEEE TPAMI 33(1), 2011) with 16 centres for every 4 numbers, compared through
registers (André et al., PVLDB 9(4), 2015). It is exhaustive: unlike a graph it holds its recall on any distribution,
and filters are a mask. It is derived from the vectors; where it is missing all are compared.

Shapes: P positions, D embedding.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pocketclip.data.publish import publish_file, publish_folder

if TYPE_CHECKING:
    from pocketclip.search.vectors import VectorReader

WORTH_IT = 100_000
"""Fewer vectors are compared one by one."""

_PART = 262_144  # positions of a file; full ones are never written again
_NUMBERS = 4  # that share a code of 4 bits
_TRAINING = 32_768
_LATE = 20_000  # vectors that are compared one by one before they are added here
_GONE = 0.2  # of the positions, before all are made anew
_FOLDER = re.compile(r"first-\d{4}")

Blocks = Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
"""Items [N], ascending, and their rotated vectors [N, D], some at a time."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some positions: their items, ascending, and a faiss index of their codes."""

    stamp: tuple[str, int]
    ids_P: npt.NDArray[np.int64]
    codes: Any


@dataclass(frozen=True, kw_only=True)
class FirstPass:
    """Names candidates."""

    parts: tuple[Part, ...]

    @cached_property
    def ids(self) -> npt.NDArray[np.int64]:
        """Items by position, ascending; some may be gone."""
        return np.concatenate([part.ids_P for part in self.parts])

    @property
    def last_id(self) -> int:
        """Items with larger numbers are not covered."""
        return int(self.parts[-1].ids_P[-1])

    def candidates(
        self, number: int, query_D: npt.NDArray[np.float32], k: int, *, share: float
    ) -> npt.NDArray[np.int64]:
        """Positions of one part among which its share of the k nearest most likely is.

        Args:
            number: of the part.
            query_D: rotated, float32 [D].
            k: that are wanted, of all parts together.
            share: of the items that may be found; the fewer, the more candidates.
        """
        part = self.parts[number]
        wanted = self._num_wanted(k, share=share) * len(part.ids_P) / len(self.ids)
        most = min(len(part.ids_P), int(1.05 * wanted) + 100)
        _faiss().omp_set_num_threads(1)
        _, found = part.codes.search(_padded(query_D[None]), most)
        return found[0][found[0] >= 0]

    def _num_wanted(self, k: int, *, share: float) -> float:
        """So many that recall@k is 0.99 on random vectors, the hardest (docs/benchmarks.md)."""
        return (5000 + 0.024 * len(self.ids) + 40 * k) / share


def is_available() -> bool:
    """Whether faiss is installed."""
    return find_spec("faiss") is not None


def load_first_pass(folder: Path, *, known: FirstPass | None = None) -> FirstPass | None:
    """What was written beside an index; None where there is nothing, nothing whole, or no faiss to read it with.

    Args:
        folder: of the index.
        known: parts that were loaded before are kept.
    """
    if not is_available():
        return None
    had = {part.stamp: part for part in known.parts} if known else {}
    parts = []
    for path in _files(folder):
        stamp = (f"{path.parent.name}/{path.name}", path.stat().st_mtime_ns)
        part = had.get(stamp) or _load(path, stamp)
        if part is None:
            break
        parts.append(part)
    if not parts:
        return None
    if known is not None and tuple(part.stamp for part in parts) == tuple(part.stamp for part in known.parts):
        return known
    return FirstPass(parts=tuple(parts))


def write_first_pass(folder: Path, blocks: Blocks, *, sample_SD: npt.NDArray[np.float32]) -> None:
    """Make it anew, and put it in the place of an earlier one at once.

    Args:
        folder: of the index.
        blocks: all items.
        sample_SD: rotated vectors to learn the codes from.
    """
    faiss = _faiss()
    earlier = _folders(folder)
    number = int(earlier[-1].name[-4:]) + 1 if earlier else 0
    sample_SD = _padded(sample_SD)
    dim = sample_SD.shape[1]
    empty = faiss.IndexPQFastScan(dim, dim // _NUMBERS, 4, faiss.METRIC_INNER_PRODUCT)
    empty.train(sample_SD)
    with publish_folder(folder / f"first-{number % 10_000:04}") as partial:
        _write_parts(partial, blocks, empty=empty, begin=0)
    for old in earlier:
        shutil.rmtree(old, ignore_errors=True)


def extend_first_pass(folder: Path, first: FirstPass, blocks: Blocks) -> None:
    """Add items to it.

    Args:
        folder: of the index.
        first: what is there.
        blocks: later items.
    """
    last = first.parts[-1]
    codes = _faiss().clone_index(last.codes)
    _write_parts(_folders(folder)[-1], blocks, empty=codes, begin=len(first.parts) - 1, ids_P=last.ids_P)


def keep_up(folder: Path, vectors: VectorReader) -> bool:
    """Make, extend or renew it when there are enough new vectors, or few enough of the old.

    Args:
        folder: of the index, which the caller has locked.
        vectors: of the index.

    Returns:
        Whether anything was written.
    """
    ids_N, first = vectors.ids(), vectors.first_pass
    if len(ids_N) < WORTH_IT:
        return False
    worn = first is not None and int(np.isin(first.ids, ids_N).sum()) < (1 - _GONE) * len(first.ids)
    if first is None or worn:
        sample_SD = vectors.turned_sample(_TRAINING, seed=0)
        write_first_pass(folder, vectors.turned_blocks(), sample_SD=sample_SD)
        return True
    if int((ids_N > first.last_id).sum()) < _LATE:
        return False
    extend_first_pass(folder, first, vectors.turned_blocks(after=first.last_id))
    return True


def _write_parts(
    folder: Path,
    blocks: Blocks,
    *,
    empty: Any,  # noqa: ANN401 faiss has no types
    begin: int,
    ids_P: npt.NDArray[np.int64] | None = None,
) -> None:
    """Fills parts from number `begin` on; `empty` holds the first of it already, items `ids_P`."""
    faiss = _faiss()
    codes, held = empty, [ids_P if ids_P is not None else np.empty(0, np.int64)]

    def write(number: int) -> None:
        tensors = {"ids": np.concatenate(held), "codes": faiss.serialize_index(codes)}
        with publish_file(folder / f"{number:04}.safetensors") as file:
            file.write(save(tensors))

    for ids_N, vectors_ND in _cut(blocks, room=_PART - codes.ntotal, then=_PART):
        if codes.ntotal >= _PART:
            write(begin)
            begin, held = begin + 1, []
            codes = faiss.clone_index(empty)
            codes.reset()
        codes.add(_padded(vectors_ND))
        held.append(ids_N)
    write(begin)


def _cut(
    blocks: Blocks, *, room: int, then: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Cuts blocks where a part is full: the first has room for so many."""
    for ids_N, vectors_ND in blocks:
        while len(ids_N):
            room = room or then
            yield ids_N[:room], vectors_ND[:room]
            taken = min(room, len(ids_N))
            ids_N, vectors_ND, room = ids_N[taken:], vectors_ND[taken:], room - taken


def _padded(vectors_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lacking = -vectors_ND.shape[1] % _NUMBERS
    return np.ascontiguousarray(np.pad(vectors_ND, ((0, 0), (0, lacking))) if lacking else vectors_ND)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("first-*") if _FOLDER.fullmatch(path.name))


def _files(folder: Path) -> list[Path]:
    newest = _folders(folder)[-1:]
    return sorted(newest[0].glob("[0-9]*.safetensors")) if newest else []


def _load(path: Path, stamp: tuple[str, int]) -> Part | None:
    try:
        tensors = load_file(path)
        codes = _faiss().deserialize_index(tensors["codes"])
        ids_P = tensors["ids"]
    except (OSError, SafetensorError, KeyError, RuntimeError):
        return None
    return Part(stamp=stamp, ids_P=ids_P, codes=codes) if codes.ntotal == len(ids_P) else None


def _faiss() -> Any:  # noqa: ANN401 it has no types
    return import_module("faiss")
