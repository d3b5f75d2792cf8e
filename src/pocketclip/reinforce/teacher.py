"""Teachers: whatever turns pictures and captions into embeddings worth learning from."""

# Shape suffixes: B pictures or captions, H W C pixels, D dimensions of an embedding.

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from pocketclip.checkpoint import load
from pocketclip.data.reinforcement import TeacherRecord

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Where a teacher is, and how it counts.

    Attributes:
        name: in the ensemble; letters, digits, "-" and "_".
        checkpoint: file written by `pocketclip train`.
        logit_scale: the inverse temperature to distil it at; None takes the one it learned.
    """

    name: str
    checkpoint: Path
    logit_scale: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"teacher name {self.name!r} must be letters, digits, '-' or '_'")
        if self.logit_scale is not None and not 0.0 < self.logit_scale < math.inf:
            raise ValueError(
                f"teacher {self.name}: logit_scale must be a positive number, got {self.logit_scale}"
            )


class Teacher(Protocol):
    """One of an ensemble. Embeddings are unit-norm float32 [B, D]."""

    record: TeacherRecord
    image_px: int

    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """Embeds uint8 RGB pictures of `image_px` x `image_px`."""
        ...

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds captions."""
        ...


class CheckpointTeacher:
    """A pocketclip checkpoint as a teacher, folded.

    Args:
        spec: which.
        device: where it runs.

    Raises:
        FileNotFoundError: no such checkpoint; the name of a variant, whose weights would be random, is none either.
        ValueError: the checkpoint or the device cannot be used.
    """

    def __init__(self, spec: TeacherSpec, *, device: str = "cpu") -> None:
        if not spec.checkpoint.is_file():
            what = "is a folder, not a file" if spec.checkpoint.is_dir() else "does not exist"
            raise FileNotFoundError(
                f"teacher {spec.name}: {spec.checkpoint} {what}: give a checkpoint written by `pocketclip train`"
            )
        loaded = load(spec.checkpoint)
        model = loaded.folded().to(device).model
        scale = float(model.logit_scale.exp()) if spec.logit_scale is None else spec.logit_scale
        self.record = TeacherRecord(
            name=spec.name, embed_dim=loaded.config.model.embed_dim, logit_scale=scale, digest=loaded.digest
        )
        self.image_px = loaded.config.preprocess.size
        self._model = model
        self._preprocess = loaded.config.preprocess
        self._tokenizer = loaded.tokenizer
        self._device = device

    @torch.inference_mode()
    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """Embeds uint8 RGB pictures [B, H, W, 3] of `image_px` x `image_px`: float32 [B, D]."""
        image_BCHW = torch.from_numpy(self._preprocess.normalise(pixels_BHWC)).to(
            self._device, memory_format=torch.channels_last
        )
        return self._model.encode_image(image_BCHW, normalize=True).float().cpu().numpy()

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds captions: float32 [B, D]."""
        tokens_BL = torch.from_numpy(self._tokenizer(texts)).to(self._device)
        return self._model.encode_text(tokens_BL, normalize=True).float().cpu().numpy()
