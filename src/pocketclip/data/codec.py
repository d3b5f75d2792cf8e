"""Embeddings to bytes and back, each codec with its error measured on the rows it stores."""

# Shape suffixes: N rows, D dimensions of an embedding.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

Codec = Literal["fp32", "bf16", "int8"]
CODECS: tuple[Codec, ...] = get_args(Codec)


@dataclass(frozen=True, kw_only=True)
class CodecError:
    """How far decoded rows are from what was encoded.

    Attributes:
        cosine_mean: mean cosine between a row and its decoded self, in [-1, 1].
        cosine_min: the worst row's.
    """

    cosine_mean: float
    cosine_min: float


def encode(rows_ND: np.ndarray, *, codec: Codec) -> dict[str, np.ndarray]:
    """Encodes unit-norm rows.

    Args:
        rows_ND: float32 [N, D].
        codec: `fp32`; `bf16` (rounded to nearest even, kept as its 16 bits in uint16); `int8` (one scale a row).

    Returns:
        Arrays whose first dimension is N, so that a reader touches only the rows it uses: `values`, and `scale`
        (float32 [N]) for int8.
    """
    rows_ND = np.ascontiguousarray(rows_ND, dtype=np.float32)
    if not np.isfinite(rows_ND).all():
        raise ValueError(
            "an embedding is not finite and was not stored: look for an overflow in the model that made it"
        )
    match codec:
        case "fp32":
            return {"values": rows_ND}
        case "bf16":
            bits = rows_ND.view(np.uint32)
            rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            return {"values": (rounded >> np.uint32(16)).astype(np.uint16)}
        case "int8":
            scale_N = np.abs(rows_ND).max(axis=1) / np.float32(127.0)
            safe_N1 = np.where(scale_N > 0, scale_N, np.float32(1.0))[:, None]
            return {"values": np.rint(rows_ND / safe_N1).astype(np.int8), "scale": scale_N.astype(np.float32)}


def decode(parts: Mapping[str, np.ndarray], *, codec: Codec) -> np.ndarray:
    """The inverse of `encode`: float32 [N, D]. Row-wise, so any selection of rows may be given."""
    values = parts["values"]
    match codec:
        case "fp32":
            return values.astype(np.float32)
        case "bf16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        case "int8":
            return values.astype(np.float32) * parts["scale"][:, None]


def measure(rows_ND: np.ndarray, *, codec: Codec) -> CodecError:
    """The cosine error of storing `rows_ND` (float32 [N, D], no zero row) with `codec`."""
    decoded_ND = decode(encode(rows_ND, codec=codec), codec=codec)
    norms_N = np.linalg.norm(rows_ND, axis=1) * np.linalg.norm(decoded_ND, axis=1)
    cosine_N = (rows_ND * decoded_ND).sum(axis=1) / norms_N
    return CodecError(cosine_mean=float(cosine_N.mean()), cosine_min=float(cosine_N.min()))


def pool(errors: Sequence[tuple[CodecError, int]]) -> CodecError:
    """The error of several sets of rows together: worst where a name ends in `_min` or `_max`, else the mean.

    Args:
        errors: of each set, with its number of rows; one or more sets.
    """
    num_rows = sum(num for _, num in errors)
    pooled: dict[str, float] = {}
    for field in fields(CodecError):
        values = [(getattr(error, field.name), num) for error, num in errors]
        if field.name.endswith(("_min", "_max")):
            worst = min if field.name.endswith("_min") else max
            pooled[field.name] = worst(value for value, _ in values)
        else:
            pooled[field.name] = sum(value * num for value, num in values) / num_rows
    return CodecError(**pooled)
