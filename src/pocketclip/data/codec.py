"""Embeddings to bytes and back, row by row: float32, bfloat16, 8 bits.

The codec of about four bits looks at all rows of a teacher before it stores the first: `data/codec_q4.py`.
"""

# Shape suffixes: N rows, D dimensions of an embedding, B rows asked for.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol, get_args

import numpy as np

from pocketclip.data.tables import Kind, Table

Codec = Literal["fp32", "bf16", "int8", "q4"]
CODECS: tuple[Codec, ...] = get_args(Codec)
RowCodec = Literal["fp32", "bf16", "int8"]
"""Codecs that store each row by itself."""

_CHUNK = 128  # rows that are decoded at once: they stay in the processor's cache


class RowTable(Protocol):
    """A table of stored embeddings."""

    def decode_into(self, out_BD: np.ndarray, place_B: np.ndarray, row_B: np.ndarray) -> None:
        """Writes row `row_B[i]`, decoded, to `out_BD[place_B[i]]`; rows in rising order are read faster.

        Args:
            out_BD: float32, changed in place.
            place_B: where each row goes.
            row_B: rows of the table, each within it.
        """
        ...


def encode(rows_ND: np.ndarray, *, codec: RowCodec) -> dict[str, Table]:
    """Encodes unit-norm rows, each by itself.

    Args:
        rows_ND: float32 [N, D].
        codec: `fp32`; `bf16` (rounded to nearest even, kept as its 16 bits in uint16); `int8` (one scale a row).

    Returns:
        Tables whose first dimension is N, so that a reader touches only the rows it uses: `values`, and `scale`
        (float32 [N]) for int8.

    Raises:
        ValueError: a value is not finite.
    """
    rows_ND = finite(rows_ND)
    match codec:
        case "fp32":
            return {"values": Table(kind="F32", array=rows_ND)}
        case "bf16":
            bits = rows_ND.view(np.uint32)
            rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            return {"values": Table(kind="BF16", array=(rounded >> np.uint32(16)).astype(np.uint16))}
        case "int8":
            scale_N = np.abs(rows_ND).max(axis=1) / np.float32(127.0)
            safe_N1 = np.where(scale_N > 0, scale_N, np.float32(1.0))[:, None]
            return {
                "values": Table(kind="I8", array=np.rint(rows_ND / safe_N1).astype(np.int8)),
                "scale": Table(kind="F32", array=scale_N.astype(np.float32)),
            }


def finite(rows_ND: np.ndarray) -> np.ndarray:
    """The rows as contiguous float32. ValueError when one of their values is not finite."""
    rows_ND = np.ascontiguousarray(rows_ND, dtype=np.float32)
    if not np.isfinite(rows_ND).all():
        raise ValueError(
            "an embedding is not finite and was not stored: look for an overflow in the model that made it"
        )
    return rows_ND


def expected(*, codec: RowCodec, num_rows: int, embed_dim: int) -> dict[str, tuple[Kind, tuple[int, ...]]]:
    """Type and shape of every table that `encode` makes of so many rows."""
    values: dict[RowCodec, Kind] = {"fp32": "F32", "bf16": "BF16", "int8": "I8"}
    tables: dict[str, tuple[Kind, tuple[int, ...]]] = {"values": (values[codec], (num_rows, embed_dim))}
    if codec == "int8":
        tables["scale"] = ("F32", (num_rows,))
    return tables


class PlainTable:
    """Rows that were encoded each by itself.

    Args:
        parts: what `encode` made.
        codec: how.
    """

    def __init__(self, parts: Mapping[str, Table], *, codec: RowCodec) -> None:
        self._codec = codec
        self._values_ND = parts["values"].array
        self._scale_N = parts["scale"].array if codec == "int8" else None

    def decode_into(self, out_BD: np.ndarray, place_B: np.ndarray, row_B: np.ndarray) -> None:
        """See `RowTable`."""
        if self._codec == "fp32":
            out_BD[place_B] = self._values_ND[row_B]
            return
        width = self._values_ND.shape[1]
        stored_CD = np.empty((_CHUNK, width), self._values_ND.dtype)
        decoded_CD = np.empty((_CHUNK, width), np.float32)
        for chunk in chunks(len(row_B), _CHUNK):
            rows_C = row_B[chunk]
            stored, decoded = stored_CD[: len(rows_C)], decoded_CD[: len(rows_C)]
            # "clip" spares a second look at the rows, which are within the table.
            np.take(self._values_ND, rows_C, axis=0, out=stored, mode="clip")
            if self._scale_N is None:
                bits = decoded.view(np.uint32)
                bits[...] = stored
                bits <<= np.uint32(16)
            else:
                decoded[...] = stored
                decoded *= self._scale_N[rows_C, None]
            out_BD[place_B[chunk]] = decoded


def decode(table: RowTable, row_B: np.ndarray, *, embed_dim: int) -> np.ndarray:
    """Rows of a table: float32 [B, D]."""
    out_BD = np.empty((len(row_B), embed_dim), np.float32)
    table.decode_into(out_BD, np.arange(len(row_B)), row_B)
    return out_BD


def chunks(num: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `num` items."""
    return (slice(start, start + size) for start in range(0, num, size))
