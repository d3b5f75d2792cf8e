"""Teachers that cost nothing, for `python:plain_teachers:make` and for tests that hold one themselves."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.teachers import TeacherSpec

SOURCE = "python:plain_teachers:make"
POISON = "a text that breaks the tokenizer"


class PlainTeacher:
    """A teacher that embeds by a fixed linear map of the pixels, or by the text's digest; it remembers its input."""

    def __init__(self, name: str, *, image_px: int, width: int = 6, scale: float = 30.0) -> None:
        self.record = TeacherRecord(name=name, embed_dim=width, logit_scale=scale, digest=name)
        self.image_px = image_px
        self.seen: list[np.ndarray] = []
        self.batches: list[int] = []
        shape = (3 * image_px * image_px, width)
        self._map = np.random.default_rng(len(name)).standard_normal(shape).astype(np.float32)

    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        assert pixels_BHWC.shape[1:] == (self.image_px, self.image_px, 3)
        self.seen.extend(pixels_BHWC.copy())
        self.batches.append(len(pixels_BHWC))
        return _unit(pixels_BHWC.reshape(len(pixels_BHWC), -1).astype(np.float32) @ self._map + 1)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        self.batches.append(len(texts))
        if POISON in texts:
            raise ValueError("no such character")
        digests = [hashlib.sha256(text.encode()).digest()[: self.record.embed_dim] for text in texts]
        return _unit(np.array([list(digest) for digest in digests], dtype=np.float32) - 127.5)

    def describe(self) -> Mapping[str, object]:
        return {"kind": "plain"}


class SlowTeacher(PlainTeacher):
    """Takes POCKETCLIP_TEST_SECONDS for a batch; where POCKETCLIP_TEST_ONCE names a file, only while it makes it."""

    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        once = os.environ.get("POCKETCLIP_TEST_ONCE")
        if once is None or _make(Path(once)):
            time.sleep(float(os.environ.get("POCKETCLIP_TEST_SECONDS", "0")))
        return super().encode_image(pixels_BHWC)


def make(spec: TeacherSpec, **_: object) -> PlainTeacher:
    """Pictures of 8 pixels for a name with an even number of letters, of 12 for others."""
    return SlowTeacher(spec.name, image_px=12 if len(spec.name) % 2 else 8, scale=spec.logit_scale or 30.0)


def _make(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _unit(rows_BD: np.ndarray) -> np.ndarray:
    return rows_BD / np.linalg.norm(rows_BD, axis=1, keepdims=True)
