"""CLIPScore: how well a model that knows both thinks that captions and their pictures go together."""

# Shape suffixes: B captions, H W pixels, D dimensions of an embedding.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pocketclip.data.preprocess import Preprocess
from pocketclip.teachers import Teacher

WEIGHT = 2.5


class ClipScorer:
    """Measures captions with a teacher (Hessel et al., 2021, arXiv 2104.08718, section 3): 2.5 max(cosine, 0).

    The paper's model reads "A photo depicts" before every caption; `prompt` gives that or nothing.

    Args:
        teacher: any checkpoint, made by `build_teacher`.
        prompt: written before each caption.
    """

    def __init__(self, teacher: Teacher, *, prompt: str = "A photo depicts ") -> None:
        self._teacher = teacher
        self._prompt = prompt
        self._preprocess = Preprocess(
            size=teacher.image_px, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bicubic"
        )

    def __call__(self, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """Scores of captions, each with its picture (of any mode and size)."""
        assert len(images) == len(texts)
        if not images:
            return []
        pixels_BHWC = np.stack([self._preprocess.pixels(image) for image in images])
        image_BD = self._teacher.encode_image(pixels_BHWC)
        text_BD = self._teacher.encode_text([self._prompt + text for text in texts])
        return (WEIGHT * np.maximum((image_BD * text_BD).sum(axis=1), 0.0)).tolist()
