"""A vector in 9.5 bits a number: 8 that are scanned, and one or two more for the last comparison.

Vectors are rotated first, by the same random rotation for all: a few large numbers, which many models' embeddings have,
would otherwise cost all others their precision. A row's largest number becomes 508, the others are rounded: to whole
numbers in the first half of the row, to even ones in the second. Such a number is 4 * high + low, with low from 0 to 3.

Shapes: N vectors, D embedding, F bytes of scale and low bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_LARGEST = 508
_SCALE = np.dtype("<f4")

High = npt.NDArray[np.int8]
Fine = npt.NDArray[np.uint8]


def random_rotation(embed_dim: int, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """An orthogonal matrix float32 [D, D], uniform among all (Mezzadri, math-ph/0609050: QR with fixed signs)."""
    normal = np.random.default_rng(seed).standard_normal((embed_dim, embed_dim))
    q, r = np.linalg.qr(normal)
    return (q * np.sign(np.diag(r))).astype(np.float32)


def fine_width(embed_dim: int) -> int:
    """F: bytes of a row's scale and low bits."""
    return _SCALE.itemsize + -(-(embed_dim + _half(embed_dim)) // 8)


def encode(vectors_ND: npt.NDArray[np.float32]) -> tuple[High, Fine]:
    """Rotated unit vectors float32 [N, D] to int8 [N, D], and scale and low bits uint8 [N, F]."""
    half = _half(vectors_ND.shape[1])
    largest_N1 = np.maximum(np.abs(vectors_ND).max(axis=1, keepdims=True), 1e-30)
    value_ND = vectors_ND * (_LARGEST / largest_N1)
    value_ND[:, half:] *= 0.5
    value_ND = np.rint(value_ND, out=value_ND).astype(np.int16)
    value_ND[:, half:] <<= 1
    square_N1 = np.einsum("nd,nd->n", value_ND, value_ND, dtype=np.float64)[:, None]
    scale_N1 = (1 / np.sqrt(np.maximum(square_N1, 1))).astype(_SCALE)
    low = np.concatenate([value_ND >> 1, value_ND[:, :half]], axis=1)
    packed = np.packbits((low & 1).astype(np.uint8), axis=1)
    return (value_ND >> 2).astype(np.int8), np.concatenate([scale_N1.view(np.uint8), packed], axis=1)


def decode(high_ND: High, fine_NF: Fine) -> npt.NDArray[np.float32]:
    """The rotated vectors float32 [N, D], length 1."""
    dim = high_ND.shape[1]
    half = _half(dim)
    low = np.unpackbits(fine_NF[:, _SCALE.itemsize :], axis=1, count=dim + half)
    value_ND = high_ND.astype(np.float32)
    value_ND *= 2
    value_ND += low[:, :dim]
    value_ND *= 2
    value_ND[:, :half] += low[:, dim:]
    value_ND *= scales(fine_NF)[:, None]
    return value_ND


def _half(embed_dim: int) -> int:
    return -(-embed_dim // 2)


def scales(fine_NF: Fine) -> npt.NDArray[np.float32]:
    """Scale of each row, float32 [N]."""
    return (
        np.ascontiguousarray(fine_NF[:, : _SCALE.itemsize]).view(_SCALE)[:, 0].astype(np.float32, copy=False)
    )


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Compares one query with many int8 rows, in whole numbers.

    The query has two int8 numbers for each of its own, so that only the rows' low bits are missing from the result.
    """

    dots: Callable[[High], npt.NDArray[np.float32]]
    offset: float

    def cosines(self, high_ND: High, scale_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """About the cosines, float32 [N]; off by what the low bits are worth."""
        score_N = self.dots(high_ND)
        score_N += self.offset
        score_N *= scale_N
        return score_N


def scan(query_D: npt.NDArray[np.float32]) -> Scan:
    """Prepares a rotated query float32 [D]."""
    import numkong

    step = float(max(np.abs(query_D).max(), 1e-30)) / 127
    coarse_D = np.rint(query_D / step)
    fine_D = np.rint((query_D - coarse_D * step) * (254 / step))
    packed = numkong.dots_pack(np.stack([coarse_D, fine_D]).astype(np.int8), dtype="int8")
    half = _half(len(query_D))

    def dots(high_ND: High) -> npt.NDArray[np.float32]:
        dot_N2 = np.asarray(numkong.dots_packed(high_ND, packed))
        score_N = np.multiply(dot_N2[:, 0], 4 * step, dtype=np.float32)
        score_N += np.multiply(dot_N2[:, 1], 4 * step / 254, dtype=np.float32)
        return score_N

    # low is 0 to 3 in the first half, 0 or 2 in the second
    return Scan(dots=dots, offset=1.5 * float(query_D[:half].sum()) + float(query_D[half:].sum()))
