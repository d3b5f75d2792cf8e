"""The named models: one row each, name -> frozen config.

MobileCLIP2 (arXiv 2508.20691), Table 8, and small relatives for small pictures and small machines.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pocketclip.models.clip import ClipConfig
from pocketclip.models.fastvit import FastViTConfig
from pocketclip.models.text import TextConfig
from pocketclip.models.vit import ViTConfig

RAW_MEAN = (0.0, 0.0, 0.0)
RAW_STD = (1.0, 1.0, 1.0)
HALF_MEAN = (0.5, 0.5, 0.5)
HALF_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model and the pictures it takes.

    Attributes:
        name: lower_snake name, the key in VARIANTS.
        model: the two towers (vocabulary and context length are in model.text).
        image_px: side of the square picture.
        mean: subtracted from each channel of a picture in [0, 1].
        std: divides each channel afterwards.
        interpolation: how a picture is resized.
    """

    name: str
    model: ClipConfig
    image_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]


TEXT_BASE = TextConfig(width=512, heads=8, layers=12)
TEXT_TINY = TextConfig(vocab_size=8192, context_length=26, width=128, heads=4, layers=2)

_ROWS = (
    Variant(
        name="mobileclip2_s0",
        model=ClipConfig(
            image=FastViTConfig(widths=(64, 128, 256, 512), depths=(2, 6, 10, 2)),
            text=TEXT_BASE,
            embed_dim=512,
        ),
        image_px=256,
        mean=RAW_MEAN,
        std=RAW_STD,
        interpolation="bilinear",
    ),
    # The tiny ones: pictures of 48 px leave a last map of 3 x 3 places, and networks this shallow that train for a few
    # hundred steps need their branches open from the start (layer scale 1, not 1e-5).
    Variant(
        name="pocketclip_tiny",
        model=ClipConfig(
            image=FastViTConfig(
                widths=(24, 48, 96), depths=(1, 1, 2), mlp_ratio=2.0, layer_scale_init=1.0, init_std=0.05
            ),
            text=TEXT_TINY,
            embed_dim=128,
        ),
        image_px=48,
        mean=HALF_MEAN,
        std=HALF_STD,
        interpolation="bilinear",
    ),
    Variant(
        name="pocketclip_tiny_vit",
        model=ClipConfig(
            image=ViTConfig(
                image_px=48, patch_px=8, width=128, heads=4, layers=3, mlp_ratio=2.0, stem="conv", pool="avg"
            ),
            text=TEXT_TINY,
            embed_dim=128,
        ),
        image_px=48,
        mean=HALF_MEAN,
        std=HALF_STD,
        interpolation="bilinear",
    ),
    Variant(
        name="pocketclip_tiny_teacher",
        model=ClipConfig(
            image=FastViTConfig(
                widths=(40, 80, 160), depths=(1, 1, 2), mlp_ratio=2.0, layer_scale_init=1.0, init_std=0.05
            ),
            text=TEXT_TINY,
            embed_dim=128,
        ),
        image_px=48,
        mean=HALF_MEAN,
        std=HALF_STD,
        interpolation="bilinear",
    ),
)

VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in _ROWS})


def variant(name: str) -> Variant:
    """The variant of that name; MobileCLIP2-S0 and mobileclip2_s0 are the same.

    Raises:
        ValueError: unknown name; the message lists the closest known ones.
    """
    key = name.strip().lower().replace("-", "_")
    if key in VARIANTS:
        return VARIANTS[key]
    close = difflib.get_close_matches(key, VARIANTS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(VARIANTS)}."
    raise ValueError(f"Unknown variant {name!r}: {hint}")
