"""Arrays through a pipe: eight bytes of length, then numpy's own format."""

from __future__ import annotations

import io
from typing import IO

import numpy as np

_LENGTH_BYTES = 8


def send(stream: IO[bytes], array: np.ndarray) -> None:
    """Writes one array."""
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    stream.write(data.tell().to_bytes(_LENGTH_BYTES, "little") + data.getvalue())
    stream.flush()


def receive(stream: IO[bytes]) -> np.ndarray | None:
    """Reads one array; None at the end.

    Raises:
        EOFError: the stream ends in the middle of one.
    """
    head = stream.read(_LENGTH_BYTES)
    if not head:
        return None
    num_bytes = int.from_bytes(head, "little")
    data = stream.read(num_bytes)
    if len(head) < _LENGTH_BYTES or len(data) < num_bytes:
        raise EOFError("the other process ended in the middle of an array")
    return np.load(io.BytesIO(data), allow_pickle=False)
