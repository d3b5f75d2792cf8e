"""What the gate is fed: made-up pictures of odd sizes and texts that meet the tokenizer's rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

PROBE_TEXTS = (
    "a photo of a dog",
    "",
    "two red bicycles leaning on a wall, 1987",
    "UPPER case, punctuation!!! and   spaces",
    "crème brûlée &amp; naïve façade",
    "日本語のテキスト と 한국어",
    "👩🏽‍🚒 woman firefighter: medium skin tone",
    "it's the dog's bowl; they're hungry",
    "3.14159 x 10^-7",
    "a <start_of_text> b <end_of_text> c",
    "a very long sentence that goes on and on " * 12,
    "grinning face",
    "flag: Switzerland",
    "an aerial view of a city at night with a river",
)
"""Texts of every kind: empty, too long, other scripts, emoji, HTML, special texts."""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Inputs of the gate.

    Attributes:
        images: RGB pictures.
        texts: texts.
        num_pairs: so many of the first pictures and texts belong together, row by row.
    """

    images: tuple[Image.Image, ...]
    texts: tuple[str, ...]
    num_pairs: int = 0


def make_pictures(count: int, *, seed: int) -> tuple[Image.Image, ...]:
    """Pictures of odd sizes, the same for the same seed: smooth colour fields, edges and noise mixed."""
    rng = np.random.default_rng(seed)
    return tuple(_picture(rng) for _ in range(count))


def _picture(rng: np.random.Generator) -> Image.Image:
    width, height = (int(side) for side in rng.integers(40, 420, size=2))
    cells = int(rng.integers(2, 12))
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
    resampling = (Image.Resampling.BICUBIC, Image.Resampling.NEAREST)[int(rng.integers(2))]
    fields = np.asarray(coarse.resize((width, height), resampling), dtype=np.float32)
    noise = rng.normal(0, float(rng.uniform(0, 40)), fields.shape)
    return Image.fromarray(np.clip(fields + noise, 0, 255).astype(np.uint8))
