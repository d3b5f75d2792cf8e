"""Asking a teacher for a batch, and finding out which rows it has no embedding for."""

# Shape suffixes: B rows of a batch, D dimensions of an embedding.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np

from pocketclip.teachers.teacher import EncodeError, Teacher

Rows = TypeVar("Rows", np.ndarray, Sequence[str])


def encoded(
    teacher: Teacher, encode: Callable[[Rows], np.ndarray], rows: Rows
) -> tuple[np.ndarray, dict[int, str]]:
    """Embeds a batch; rows that the teacher refuses are left out and the others embedded together.

    Args:
        teacher: whose `encode` it is.
        encode: its `encode_image` or `encode_text`.
        rows: pictures [B, H, W, 3] or texts.

    Returns:
        Embeddings float32 [B, D], and row -> reason for those that have none, whose values mean nothing.

    Raises:
        ValueError: the teacher refuses the batch but none of its rows, or gives rows of another shape than it says.
    """
    reasons: dict[int, str] = {}
    rows_BD = np.zeros((len(rows), teacher.record.embed_dim), np.float32)
    left = list(range(len(rows)))
    while left:
        batch = rows if len(left) == len(rows) else taken(rows, left)
        try:
            made_BD = encode(batch)
        except ValueError as error:
            found = error.reasons if isinstance(error, EncodeError) else _refused(encode, batch)
            if not found:
                raise
            reasons |= {left[row]: _named(teacher, reason) for row, reason in found.items()}
            left = [row for row in left if row not in reasons]
            continue
        if made_BD.shape != (len(left), teacher.record.embed_dim):
            raise ValueError(
                f"teacher {teacher.record.name} gives embeddings of shape {made_BD.shape} for {len(left)} inputs and "
                f"says that their width is {teacher.record.embed_dim}: correct the teacher"
            )
        rows_BD[left] = made_BD
        finite_B = np.isfinite(made_BD).all(axis=1)
        for row in np.flatnonzero(~finite_B).tolist():
            reasons[left[row]] = _named(teacher, "gives an embedding that is not finite")
        break
    return rows_BD, reasons


def _refused(encode: Callable[[Rows], np.ndarray], batch: Rows) -> dict[int, str]:
    """The rows that a teacher refuses when it sees them alone."""
    refused: dict[int, str] = {}
    for row in range(len(batch)):
        try:
            encode(taken(batch, [row]))
        except ValueError as error:
            refused[row] = str(error)
    return refused


def taken(rows: Rows, at: Sequence[int]) -> Rows:
    """The rows at these places."""
    some = rows[list(at)] if isinstance(rows, np.ndarray) else [rows[row] for row in at]
    return cast("Rows", some)


def _named(teacher: Teacher, reason: str) -> str:
    prefix = f"teacher {teacher.record.name}"
    return reason if reason.startswith(prefix) else f"{prefix}: {reason}"
