from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from pocketclip.data.reinforcement import TeacherRecord


class PlainTeacher:
    """A teacher that embeds by a fixed linear map of the pixels, or by the text's digest; it remembers its input."""

    def __init__(self, name: str, *, image_px: int, width: int = 6) -> None:
        self.record = TeacherRecord(name=name, embed_dim=width, logit_scale=30.0, digest=name)
        self.image_px = image_px
        self.seen: list[np.ndarray] = []
        self.batches: list[int] = []
        shape = (3 * image_px * image_px, width)
        self._map = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)

    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        assert pixels_BHWC.shape[1:] == (self.image_px, self.image_px, 3)
        self.seen.extend(pixels_BHWC)
        self.batches.append(len(pixels_BHWC))
        return _unit(pixels_BHWC.reshape(len(pixels_BHWC), -1).astype(np.float32) @ self._map)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        self.batches.append(len(texts))
        digests = [hashlib.sha256(text.encode()).digest()[: self.record.embed_dim] for text in texts]
        return _unit(np.array([list(digest) for digest in digests], dtype=np.float32) - 127.5)


def _unit(rows_BD: np.ndarray) -> np.ndarray:
    return rows_BD / np.linalg.norm(rows_BD, axis=1, keepdims=True)


@pytest.fixture
def small_and_large() -> list[PlainTeacher]:
    """Two teachers of different input sizes."""
    return [PlainTeacher("small", image_px=16), PlainTeacher("larger", image_px=28, width=9)]
