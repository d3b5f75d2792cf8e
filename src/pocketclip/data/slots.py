"""Memory that two processes share, for arrays to be handed over without a copy.

The memory has no name: it goes with the last process that has it, however that ends.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

_ALIGNMENT = 64


class Parcel(NamedTuple):
    """An object on its way between processes.

    Attributes:
        pickled: all but its arrays.
        arrays: of each array, where it lies in the slot (start and length), or its bytes where it does not.
    """

    pickled: bytes
    arrays: list[tuple[int, int] | bytes]


def open_memory(num_bytes: int) -> int:
    """A descriptor of nameless memory, to hand to a child process; the caller closes it."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("pocketclip-batches")
    else:
        with tempfile.TemporaryFile() as file:
            memory = os.dup(file.fileno())
    os.ftruncate(memory, num_bytes)
    return memory


class Slot:
    """A stretch of shared memory, big enough for most batches: what does not fit travels by the pipe.

    Args:
        memory: descriptor of `open_memory`.
        start: in bytes; a multiple of `mmap.ALLOCATIONGRANULARITY`.
        num_bytes: likewise.
    """

    def __init__(self, memory: int, *, start: int, num_bytes: int) -> None:
        self._bytes = np.frombuffer(mmap.mmap(memory, num_bytes, offset=start), np.uint8)
        self._used = 0

    def clear(self) -> None:
        """Forgets what was put into it."""
        self._used = 0

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An array in the slot, of undefined values; elsewhere where the slot is full."""
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start = self._take(num_bytes)
        if start is None:
            return np.empty(shape, dtype)
        return self._bytes[start : start + num_bytes].view(dtype).reshape(shape)

    def pack(self, value: object) -> Parcel:
        """Puts what arrays `value` has into the slot, unless they are there."""
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return Parcel(pickled, [self._place(np.frombuffer(buffer.raw(), np.uint8)) for buffer in buffers])

    def unpack(self, parcel: Parcel) -> object:
        """The object again, with copies of its arrays."""
        return self._unpack(parcel, lambda start, length: bytearray(self._bytes.data[start : start + length]))

    def lend(self, parcel: Parcel, *, returned: Callable[[], None]) -> object:
        """The object again, its arrays in the slot; `returned` is called when the last of them is gone."""
        lease = self._bytes.view()
        weakref.finalize(lease, returned).atexit = False
        memory = lease.data
        return self._unpack(parcel, lambda start, length: memory[start : start + length])

    def _unpack(self, parcel: Parcel, found: Callable[[int, int], memoryview | bytearray]) -> object:
        buffers = [bytearray(place) if isinstance(place, bytes) else found(*place) for place in parcel.arrays]
        return pickle.loads(parcel.pickled, buffers=buffers)  # noqa: S301  # of our own child process

    def _place(self, array_N: np.ndarray) -> tuple[int, int] | bytes:
        inside = array_N.ctypes.data - self._bytes.ctypes.data
        if 0 <= inside < len(self._bytes):
            return inside, len(array_N)
        start = self._take(len(array_N))
        if start is None:
            return array_N.tobytes()
        self._bytes[start : start + len(array_N)] = array_N
        return start, len(array_N)

    def _take(self, num_bytes: int) -> int | None:
        start = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        if start + num_bytes > len(self._bytes):
            return None
        self._used = start + num_bytes
        return start
