"""The codec `q4`: four and a half bits a value, spent where a teacher's similarities feel them.

Distillation sees products of image and text rows alone. An error in one dimension of an image row is multiplied with
that dimension of the texts, so a dimension matters as much as its variance in one table times its mean square in the
other. Both tables of a teacher are therefore turned into a basis in which few dimensions matter much: the eigenvectors
of the sum of their second moments. There each dimension gets as many bits as it deserves (transform coding; Goyal,
2001), and is rounded to the best levels for a normal distribution (Lloyd, 1982; Max, 1960).

A word of 16 bits holds k digits of the base n, the largest with n^k <= 65536; the dimensions that matter most come
first, with one digit a word, the last with eight, and some are not stored at all. The basis is stored too, as D rows of
the same form; the encoder inverts the stored one, so that its rounding costs next to nothing.
"""

# Shape suffixes: N rows, D dimensions of an embedding, K dimensions that are stored, W words of a row, B rows at once.

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from pocketclip.data.codec import chunks
from pocketclip.data.tables import Kind, Table

Side = Literal["image", "text"]
SIDES: tuple[Side, Side] = ("image", "text")

BASE = {1: 65536, 2: 256, 3: 40, 4: 16, 5: 9, 6: 6, 8: 4}
"""Digits of a word -> how many values each has."""

BITS_PER_VALUE = 4.5
"""All that a teacher's rows take, basis included, over the number of their values."""

_IN_BYTES = (2, 4, 8)  # digits of a word of which each byte, the lower one first, holds half
_STEPS = 2048  # levels of a whole word in a standard deviation: it reaches to 16 of them
_FEWEST_WORDS = 1 << 14  # that a teacher's tables may take however few rows they have
_FLOOR = 0.1  # share of the mean by which every dimension matters, whatever the other table
_CHUNK = 1024  # rows that are worked on at once
_READ = 512  # rows that are read at once: they stay in the processor's second cache
_LLOYD_STEPS = 400


class Segment(NamedTuple):
    """`count` dimensions in a row with `digits` digits a word; `count` is a multiple of `digits`."""

    digits: int
    count: int


Segments = tuple[Segment, ...]
RowBlocks = Callable[[], Iterator[np.ndarray]]
"""Gives all rows of a table, float32, block by block, as often as it is called."""


def num_words(segments: Segments) -> int:
    """W, words of a row."""
    return sum(segment.count // segment.digits for segment in segments)


def num_stored(segments: Segments) -> int:
    """K, dimensions of a row that are stored."""
    return sum(segment.count for segment in segments)


# Levels of the digits of a standard normal variable.


@lru_cache
def levels(digits: int) -> np.ndarray:
    """Float32, rising: what a digit stands for, in standard deviations."""
    num = BASE[digits]
    if digits == 1:
        return ((np.arange(num) - (num - 1) / 2) / _STEPS).astype(np.float32)
    normal = NormalDist()
    # The optimum for many levels (Panter and Dite, 1951), and where Lloyd's iteration starts for few.
    found = [math.sqrt(3.0) * normal.inv_cdf((j + 0.5) / num) for j in range(num)]
    for _ in range(_LLOYD_STEPS if num <= 64 else 0):
        edges = [(low + high) / 2 for low, high in pairwise(found)]
        share = [0.0, *map(normal.cdf, edges), 1.0]
        density = [0.0, *map(normal.pdf, edges), 0.0]
        found = [(density[j] - density[j + 1]) / (share[j + 1] - share[j]) for j in range(num)]
    return np.array(found).astype(np.float32)


@lru_cache
def _distortion(digits: int) -> float:
    """Mean squared error of a standard normal variable that is stored with so many digits a word."""
    if digits == 1:
        return 1.0 / (12.0 * _STEPS**2)
    normal = NormalDist()
    found = levels(digits).tolist()
    edges = [(low + high) / 2 for low, high in pairwise(found)]
    share = [0.0, *map(normal.cdf, edges), 1.0]
    density = [0.0, *map(normal.pdf, edges), 0.0]
    # The levels are their cells' means, or nearly: 1 - sum of share * level^2 would need exactly.
    explained = sum(
        2 * level * (density[j] - density[j + 1]) - level * level * (share[j + 1] - share[j])
        for j, level in enumerate(found)
    )
    return 1.0 - explained


@lru_cache
def all_levels() -> np.ndarray:
    """Float32 [331]: the levels of 2, 3, 4, 5, 6 and 8 digits a word, one after the other."""
    return np.concatenate([levels(digits) for digits in BASE if digits > 1])


# Words.


def _pack(normal_BK: np.ndarray, segments: Segments) -> np.ndarray:
    """Values in standard deviations to uint16 [B, W]; the first digit of a word counts least."""
    words = [np.zeros((len(normal_BK), 0), np.uint16)]
    start = 0
    for digits, count in segments:
        part_BC = normal_BK[:, start : start + count]
        start += count
        base = BASE[digits]
        if digits == 1:
            digit_BC = np.clip(np.rint(part_BC * _STEPS + (base - 1) / 2), 0, base - 1).astype(np.int64)
        else:
            level = levels(digits).astype(np.float64)
            digit_BC = np.searchsorted((level[1:] + level[:-1]) / 2, part_BC)
        digit_BWK = digit_BC.reshape(len(part_BC), count // digits, digits)
        words.append((digit_BWK @ base ** np.arange(digits)).astype(np.uint16))
    return np.concatenate(words, axis=1)


def _unpack(words_BW: np.ndarray, segments: Segments, *, level: bytes) -> np.ndarray:
    """Float32 [B, K], in standard deviations; `level` is the bytes of `all_levels`."""
    normal_BK = np.empty((len(words_BW), num_stored(segments)), np.float32)
    word = column = 0
    for digits, count in segments:
        part_BW = words_BW[:, word : word + count // digits]
        if digits in _IN_BYTES:  # small tables are looked up faster: they stay in the processor's first cache
            part_BW = np.ascontiguousarray(part_BW).view(np.uint8)
        values = _meaning(digits, level).take(part_BW, axis=0, mode="clip")
        normal_BK[:, column : column + count] = values.reshape(len(words_BW), count)
        word += count // digits
        column += count
    return normal_BK


@lru_cache(maxsize=64)
def _meaning(digits: int, level: bytes) -> np.ndarray:
    """What every word stands for, float32 [65536, digits]; of `_IN_BYTES` every byte, [256, digits / 2].

    Words beyond the last are taken for it.
    """
    if digits == 1:
        return levels(1)[:, None]
    base = BASE[digits]
    start = sum(BASE[other] for other in BASE if 1 < other < digits)
    own = np.frombuffer(level, np.float32)[start : start + base]
    if digits in _IN_BYTES:
        part, num = np.arange(1 << 8), digits // 2
    else:
        part, num = np.minimum(np.arange(1 << 16), base**digits - 1), digits
    return np.stack([own[part // base**place % base] for place in range(num)], axis=1)


# What a teacher's two tables have in common.


@dataclass(frozen=True, kw_only=True)
class _Moments:
    """Of a table's rows, float64."""

    num_rows: int
    mean_D: np.ndarray
    second_DD: np.ndarray

    def covariance(self) -> np.ndarray:
        """[D, D]."""
        return self.second_DD - np.outer(self.mean_D, self.mean_D)


def _moments(blocks: RowBlocks) -> _Moments:
    num, total, second = 0, 0.0, 0.0
    for rows_BD in blocks():
        rows = rows_BD.astype(np.float64)
        num += len(rows)
        total = total + rows.sum(axis=0)
        second = second + rows.T @ rows
    assert isinstance(total, np.ndarray)
    assert isinstance(second, np.ndarray)
    return _Moments(num_rows=num, mean_D=total / num, second_DD=second / num)


@dataclass(frozen=True, kw_only=True)
class _Coding:
    """How a table's rows are written."""

    segments: Segments
    scale_K: np.ndarray
    mean_D: np.ndarray


class Encoder:
    """Stores a teacher's rows, all of which it has to see first.

    Sums are made in float64 and in blocks of their own, so that the stored words depend neither on how rows arrive nor,
    in practice, on the number of threads.

    Args:
        blocks: the rows of the two tables, float32 [N, D] in all, one or more each.
    """

    def __init__(self, blocks: Mapping[Side, RowBlocks]) -> None:
        moments = {side: _moments(blocks[side]) for side in SIDES}
        counts = [moments[side].num_rows for side in SIDES]
        axes_DD = _eigenvectors(moments)
        importance_D = _importance(moments, axes_DD)
        order_D = np.argsort(-importance_D, kind="stable")
        both = _allocate(importance_D[order_D], counts=counts)
        self._basis = max(both, key=lambda segments: (num_stored(segments), num_words(segments)))
        self._parts: dict[str, Table] = {"levels": _float32(all_levels())}
        self._basis_DK = self._store_basis(axes_DD[:, order_D[: num_stored(self._basis)]])
        self._inverse_KD = np.linalg.solve(self._basis_DK.T @ self._basis_DK, self._basis_DK.T)
        self._coding: dict[Side, _Coding] = {}
        for side, segments in zip(SIDES, both, strict=True):
            self._add_coding(side, segments, moments[side])

    def parts(self) -> dict[str, Table]:
        """What is stored besides the rows' words: `levels`, `basis/...`, `image/...`, `text/...`."""
        return self._parts

    def encode(self, side: Side, rows_BD: np.ndarray) -> np.ndarray:
        """The words uint16 [B, W] of rows of the table `side`."""
        coding = self._coding[side]
        words = [np.zeros((0, num_words(coding.segments)), np.uint16)]
        for chunk in chunks(len(rows_BD), _CHUNK):
            centred_BD = rows_BD[chunk].astype(np.float64) - coding.mean_D
            values_BK = centred_BD @ self._inverse_KD[: len(coding.scale_K)].T
            words.append(_pack(_in_scale(values_BK, coding.scale_K), coding.segments))
        return np.concatenate(words)

    def decode(self, side: Side, words_BW: np.ndarray) -> np.ndarray:
        """Float64 [B, D]: what a reader gets for these words, before it rounds."""
        coding = self._coding[side]
        normal_BK = _unpack(words_BW, coding.segments, level=all_levels().tobytes()).astype(np.float64)
        return (normal_BK * coding.scale_K) @ self._basis_DK[:, : len(coding.scale_K)].T + coding.mean_D

    def _store_basis(self, axes_DK: np.ndarray) -> np.ndarray:
        """Stores the basis, and returns what was stored."""
        scale_K = _rounded(np.sqrt((axes_DK**2).mean(axis=0)))
        words_DW = _pack(_in_scale(axes_DK, scale_K), self._basis)
        self._parts |= {
            "basis/values": Table(kind="U16", array=words_DW),
            "basis/scale": _float32(scale_K),
            "basis/segments": _segment_table(self._basis),
        }
        return _unpack(words_DW, self._basis, level=all_levels().tobytes()).astype(np.float64) * scale_K

    def _add_coding(self, side: Side, segments: Segments, moments: _Moments) -> None:
        inverse_KD = self._inverse_KD[: num_stored(segments)]
        variance_K = np.einsum("kd,kd->k", inverse_KD @ moments.covariance(), inverse_KD)
        coding = _Coding(
            segments=segments,
            scale_K=_rounded(np.sqrt(np.maximum(variance_K, 0.0))),
            mean_D=_rounded(moments.mean_D),
        )
        self._coding[side] = coding
        self._parts |= {
            f"{side}/scale": _float32(coding.scale_K),
            f"{side}/mean": _float32(coding.mean_D),
            f"{side}/segments": _segment_table(segments),
        }


def _rounded(values: np.ndarray) -> np.ndarray:
    """Values as they are stored, in float64."""
    return values.astype(np.float32).astype(np.float64)


def _in_scale(values_BK: np.ndarray, scale_K: np.ndarray) -> np.ndarray:
    """Values in standard deviations; as they are where nothing varies."""
    return values_BK / np.where(scale_K > 0, scale_K, 1.0)


def _float32(values: np.ndarray) -> Table:
    return Table(kind="F32", array=values.astype(np.float32))


def _segment_table(segments: Segments) -> Table:
    return Table(kind="I32", array=np.array(segments, np.int32).reshape(-1, 2))


def _eigenvectors(moments: Mapping[Side, _Moments]) -> np.ndarray:
    """Float64 [D, D], columns of length 1: of the sum of the tables' second moments."""
    _, axes_DD = np.linalg.eigh(moments["image"].second_DD + moments["text"].second_DD)
    # An eigenvector's sign is the library's whim.
    peak_D = np.take_along_axis(axes_DD, np.abs(axes_DD).argmax(axis=0)[None], axis=0)[0]
    return axes_DD * np.where(peak_D < 0, -1.0, 1.0)


def _importance(moments: Mapping[Side, _Moments], axes_DD: np.ndarray) -> np.ndarray:
    """Float64 [D]: what leaving a dimension out would do to the products, squared."""
    variance, square = {}, {}
    for side in SIDES:
        variance[side] = np.maximum(np.einsum("dk,dk->k", moments[side].covariance() @ axes_DD, axes_DD), 0.0)
        square[side] = np.einsum("dk,dk->k", moments[side].second_DD @ axes_DD, axes_DD)
    return sum(
        variance[one] * (square[other] + _FLOOR * square[other].mean()) for one, other in (SIDES, SIDES[::-1])
    )


def _allocate(importance_D: np.ndarray, *, counts: Sequence[int]) -> tuple[Segments, Segments]:
    """Segments of image and text rows that cost least, within the budget.

    Args:
        importance_D: falling.
        counts: rows of the two tables; there are D rows of basis, too.

    Returns:
        For a price of a word, each dimension has the digits that are cheapest, its error included; the price is the
        lowest at which all fits. A table with many rows pays it more often than one with few, and gets fewer bits.
    """
    width = len(importance_D)
    budget = most_words(num_rows=sum(counts), embed_dim=width)
    digits = np.array([*BASE, 0])
    words = np.array([1.0 / number for number in BASE] + [0.0])
    error = np.array([_distortion(number) for number in BASE] + [1.0])

    def at(price: float) -> tuple[Segments, Segments]:
        image, text = (
            _segments(digits[(importance_D[:, None] * error + price * num * words).argmin(axis=1)])
            for num in counts
        )
        return image, text

    def cost(both: tuple[Segments, Segments]) -> int:
        sizes = [num_words(segments) for segments in both]
        rows = sum(num * size for num, size in zip(counts, sizes, strict=True))
        return rows + width * max(sizes)

    high = max(float(importance_D[0]), np.finfo(np.float64).tiny) * 100  # nothing is worth a word
    low = high * 1e-18
    for _ in range(100):
        price = math.sqrt(low * high)
        low, high = (price, high) if cost(at(price)) > budget else (low, price)
    return at(high)


def most_words(*, num_rows: int, embed_dim: int) -> float:
    """Words that the rows of a teacher's two tables and its basis take together, at most.

    Where there are many rows, nearly so many are taken; never more than one for each value.

    Args:
        num_rows: of both tables.
        embed_dim: D.
    """
    num_other = 10 * embed_dim  # words' worth of scales and means
    return max(BITS_PER_VALUE * num_rows * embed_dim / 16 - num_other, _FEWEST_WORDS)


def _segments(digits_D: np.ndarray) -> Segments:
    """Dimensions in order, few digits a word first; what fills no word goes to the next kind."""
    segments, left = [], 0
    for digits in BASE:
        wanted = int((digits_D == digits).sum()) + left
        left = wanted % digits
        if wanted > left:
            segments.append(Segment(digits, wanted - left))
    return tuple(segments)


# Reading.


class Basis:
    """The basis that a teacher's two tables share.

    Args:
        parts: `levels` and `basis/...`, as they come from a file.

    Raises:
        ValueError: they do not fit together; says which.
    """

    def __init__(self, parts: Mapping[str, Table]) -> None:
        self.level = parts["levels"].array.tobytes()
        self.scale_K = parts["basis/scale"].array
        self._segments = _read_segments(parts["basis/segments"])
        self._words_DW = parts["basis/values"].array
        self._unpacked_DK: np.ndarray | None = None
        _check(self._words_DW.shape[1] == num_words(self._segments), "basis/values", "basis/segments")
        _check(self.scale_K.shape == (num_stored(self._segments),), "basis/scale", "basis/segments")

    def unpacked(self) -> np.ndarray:
        """Float32 [D, K], without its scale; the last few of a process are kept."""
        unpacked_DK = self._unpacked_DK
        if unpacked_DK is None:
            unpacked_DK = _unpack(self._words_DW, self._segments, level=self.level)
            self._unpacked_DK = unpacked_DK
            with _RECENT_LOCK:
                forgotten = _RECENT[0]() if len(_RECENT) == _RECENT.maxlen else None
                _RECENT.append(weakref.ref(self))
            if forgotten is not None:
                forgotten._unpacked_DK = None
        return unpacked_DK


_RECENT: deque[weakref.ref[Basis]] = deque(maxlen=16)  # whose basis is unpacked; of width 768 all take 38 MB
_RECENT_LOCK = threading.Lock()


class QuantisedTable:
    """Rows that `Encoder` stored.

    Args:
        parts: of one table `values`, `scale`, `mean`, `segments`, as they come from a file.
        basis: of its teacher.

    Raises:
        ValueError: they do not fit together; says which.
    """

    def __init__(self, parts: Mapping[str, Table], *, basis: Basis) -> None:
        self._basis = basis
        self._segments = _read_segments(parts["segments"])
        self._words_NW = parts["values"].array
        self._mean_D = parts["mean"].array
        num = num_stored(self._segments)
        _check(self._words_NW.shape[1] == num_words(self._segments), "values", "segments")
        _check(parts["scale"].array.shape == (num,), "scale", "segments")
        _check(num <= len(basis.scale_K), "segments", "basis/segments")
        self._scale_K = parts["scale"].array * basis.scale_K[:num]

    def decode_into(self, out_BD: np.ndarray, place_B: np.ndarray, row_B: np.ndarray) -> None:
        """See `RowTable`. A basis that is not at hand is unpacked first: ask for many rows at once."""
        turn_KD = self._basis.unpacked()[:, : len(self._scale_K)].T
        turned_CD = np.empty((min(_READ, len(row_B)), turn_KD.shape[1]), np.float32)
        for chunk in chunks(len(row_B), _READ):
            normal_CK = _unpack(self._words_NW[row_B[chunk]], self._segments, level=self._basis.level)
            normal_CK *= self._scale_K
            rows_CD = np.matmul(normal_CK, turn_KD, out=turned_CD[: len(normal_CK)])
            rows_CD += self._mean_D
            out_BD[place_B[chunk]] = rows_CD


def _read_segments(table: Table) -> Segments:
    segments = tuple(Segment(int(digits), int(count)) for digits, count in table.array)
    order = [segment.digits for segment in segments]
    good = order == sorted(set(order)) and all(
        segment.digits in BASE and segment.count > 0 and segment.count % segment.digits == 0
        for segment in segments
    )
    if not good:
        raise ValueError(f"segments are {table.array.tolist()}")
    return segments


def expected(
    *, num_rows: Mapping[Side, int], embed_dim: int
) -> dict[str, tuple[Kind, tuple[int | None, ...]]]:
    """Type and shape of every part of a teacher's tables; None where the segments say."""
    parts: dict[str, tuple[Kind, tuple[int | None, ...]]] = {
        "basis/values": ("U16", (embed_dim, None)),
        "basis/scale": ("F32", (None,)),
        "basis/segments": ("I32", (None, 2)),
    }
    for side in SIDES:
        parts |= {
            f"{side}/values": ("U16", (num_rows[side], None)),
            f"{side}/scale": ("F32", (None,)),
            f"{side}/mean": ("F32", (embed_dim,)),
            f"{side}/segments": ("I32", (None, 2)),
        }
    return parts


def _check(holds: bool, part: str, other: str) -> None:
    if not holds:
        raise ValueError(f"{part} do not fit {other}")
