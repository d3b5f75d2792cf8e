"""A perceptual hash: 64 bits that stay as they are, but for a few, when a picture is scaled or compressed again.

The lowest 8 x 8 frequencies of a picture of 32 x 32 grey values, each compared with their median. Its bits are those of
imagehash's `phash` (Zauner, 2010, "Implementation and benchmarking of perceptual image hash functions").
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIDE, _LOW = 32, 8


def _cosines() -> np.ndarray:
    frequency, place = np.arange(_LOW)[:, None], np.arange(_SIDE)[None, :]
    return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))


_COSINES = _cosines()
_ONES = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)


def phash(image: Image.Image) -> int:
    """The hash of a picture, 64 bits, the lowest frequency's first."""
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    low = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes())


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ, uint8; of uint64 arrays that numpy can broadcast."""
    differing = np.ascontiguousarray(one ^ other)
    return _ONES[differing.view(np.uint16)].reshape(*differing.shape, 4).sum(axis=-1, dtype=np.uint8)
