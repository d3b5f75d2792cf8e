"""The named models: one row each, name -> frozen config.

MobileCLIP2 (arXiv 2508.20691), Table 8, and small relatives for small pictures and small machines.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pocketclip.models.attention_pool import PoolConfig
from pocketclip.models.caption_text import DecoderConfig
from pocketclip.models.captioner import CaptionerConfig
from pocketclip.models.clip import ClipConfig
from pocketclip.models.fastvit import FastViTConfig
from pocketclip.models.hybrid_text import HybridTextConfig
from pocketclip.models.text import TextConfig
from pocketclip.models.vit import ViTConfig

RAW_MEAN = (0.0, 0.0, 0.0)
RAW_STD = (1.0, 1.0, 1.0)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF_MEAN = (0.5, 0.5, 0.5)
HALF_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model and the pictures it takes.

    Attributes:
        name: lower_snake name, the key in VARIANTS.
        model: the two towers (vocabulary and context length are in model.text), of a captioner the decoder too.
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
TEXT_CAUSAL = TextConfig(width=512, heads=8, layers=12, causal=True)
TEXT_LARGE = TextConfig(width=768, heads=12, layers=12)
TEXT_HYBRID = HybridTextConfig(width=512, heads=8, layers=4)
TEXT_TINY = TextConfig(vocab_size=8192, context_length=26, width=128, heads=4, layers=2)

MCI0 = FastViTConfig(widths=(64, 128, 256, 512), depths=(2, 6, 10, 2))
MCI1 = FastViTConfig(widths=(64, 128, 256, 512), depths=(4, 12, 20, 4))
MCI2 = FastViTConfig(widths=(80, 160, 320, 640), depths=(4, 12, 24, 4))
# The four-stage rival of MCi3 with as many parameters (Figure 3b). The release has no figures of it; these are MCi2's
# with widths times 1.8 and inner depths times 1.2, in multiples of 16 channels so that misalignment slows no kernel.
MCI2_SCALED = FastViTConfig(widths=(144, 288, 576, 1152), depths=(4, 14, 29, 4))
MCI3 = FastViTConfig(
    widths=(96, 192, 384, 768, 1536),
    depths=(2, 12, 24, 4, 2),
    mlp_ratio=4.0,
    attention_stages=2,
    squeeze_stages=0,
    norm="layer",
    stem_scale_branch=False,
)
MCI4 = FastViTConfig(
    widths=(128, 256, 512, 1024, 2048),
    depths=(2, 12, 24, 4, 4),
    mlp_ratio=4.0,
    attention_stages=2,
    squeeze_stages=0,
    norm="layer",
    stem_scale_branch=False,
)
VIT_B = ViTConfig(
    image_px=224, patch_px=16, width=768, heads=12, layers=12, stem="conv", class_position=False
)
VIT_L = ViTConfig(image_px=224, patch_px=14, width=1024, heads=16, layers=24, pre_norm=True, norm_eps=1e-5)


def _small(name: str, image: FastViTConfig, text: TextConfig | HybridTextConfig = TEXT_BASE) -> Variant:
    model = ClipConfig(image=image, text=text, embed_dim=512)
    return Variant(name=name, model=model, image_px=256, mean=RAW_MEAN, std=RAW_STD, interpolation="bilinear")


def _base(name: str) -> Variant:
    model = ClipConfig(image=VIT_B, text=TEXT_CAUSAL, embed_dim=512)
    return Variant(name=name, model=model, image_px=224, mean=RAW_MEAN, std=RAW_STD, interpolation="bilinear")


def _large(name: str, image: FastViTConfig) -> Variant:
    model = ClipConfig(image=image, text=TEXT_LARGE, embed_dim=768)
    return Variant(
        name=name, model=model, image_px=256, mean=CLIP_MEAN, std=CLIP_STD, interpolation="bilinear"
    )


def _largest(name: str) -> Variant:
    model = ClipConfig(image=VIT_L, text=TEXT_LARGE, embed_dim=768)
    return Variant(
        name=name, model=model, image_px=224, mean=CLIP_MEAN, std=CLIP_STD, interpolation="bicubic"
    )


_ROWS = (
    _small("mobileclip_s0", MCI0, TEXT_HYBRID),
    _small("mobileclip_s1", MCI1),
    _small("mobileclip_s2", MCI2),
    _base("mobileclip_b"),
    _base("mobileclip_blt"),  # mobileclip_b, trained for longer
    _large("mobileclip_s3", MCI3),
    _large("mobileclip_s4", MCI4),
    _largest("mobileclip_l_14"),
    _small("mobileclip2_s0", MCI0),
    _small("mobileclip2_s2", MCI2),
    _base("mobileclip2_b"),
    _large("mobileclip2_s3", MCI3),
    _large("mobileclip2_s4", MCI4),
    _largest("mobileclip2_l_14"),
    _large("mci2_scaled", MCI2_SCALED),
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

VIT_B_32 = ViTConfig(image_px=224, patch_px=32, width=768, heads=12, layers=12, pre_norm=True, norm_eps=1e-5)


def _coca(name: str, image: ViTConfig, *, width: int, pool_heads: int, places: int = 77) -> Variant:
    """A CoCa of open_clip's; `places` are the tokens of a text and the class token after them."""
    heads = width // 64
    text = TextConfig(context_length=places - 1, width=width, heads=heads, layers=12, causal=True)
    model = CaptionerConfig(
        image=image,
        text=text,
        embed_dim=width,
        pool=PoolConfig(num_queries=256, heads=pool_heads),
        decoder=DecoderConfig(heads=heads, layers=12),
    )
    return Variant(
        name=name, model=model, image_px=224, mean=CLIP_MEAN, std=CLIP_STD, interpolation="bicubic"
    )


_CAPTIONERS = (
    _coca("coca_vit_b_32", VIT_B_32, width=512, pool_heads=8),
    _coca("coca_vit_l_14", VIT_L, width=768, pool_heads=8),
    _coca("coca_vit_l_14_context128", VIT_L, width=768, pool_heads=8, places=128),
    _coca("coca_vit_l_14_context256", VIT_L, width=768, pool_heads=8, places=256),
    Variant(
        name="pocketclip_tiny_captioner",
        model=CaptionerConfig(
            image=FastViTConfig(
                widths=(24, 48, 96), depths=(1, 1, 2), mlp_ratio=2.0, layer_scale_init=1.0, init_std=0.05
            ),
            text=TextConfig(vocab_size=8192, context_length=26, width=128, heads=4, layers=2, causal=True),
            embed_dim=128,
            pool=PoolConfig(num_queries=10, heads=4),
            decoder=DecoderConfig(heads=4, layers=2),
        ),
        image_px=48,
        mean=HALF_MEAN,
        std=HALF_STD,
        interpolation="bilinear",
    ),
    Variant(
        name="pocketclip_tiny_captioner_vit",
        model=CaptionerConfig(
            image=ViTConfig(image_px=48, patch_px=8, width=128, heads=4, layers=2, mlp_ratio=2.0),
            text=TextConfig(vocab_size=8192, context_length=26, width=128, heads=4, layers=2, causal=True),
            embed_dim=128,
            pool=PoolConfig(num_queries=10, heads=4),
            decoder=DecoderConfig(heads=4, layers=2),
        ),
        image_px=48,
        mean=HALF_MEAN,
        std=HALF_STD,
        interpolation="bilinear",
    ),
)

CAPTIONERS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in _CAPTIONERS})
"""Models that write captions; `VARIANTS` are those that do not."""


# Other spellings of the papers and of the releases, without spaces.
_ALIASES = {
    "mobileclip_b(lt)": "mobileclip_blt",
    "mobileclip_b_lt": "mobileclip_blt",
    "mobileclip_l/14": "mobileclip_l_14",
    "mobileclip_l14": "mobileclip_l_14",
    "mobileclip2_l/14": "mobileclip2_l_14",
    "mobileclip2_l14": "mobileclip2_l_14",
}


def variant(name: str) -> Variant:
    """The variant or captioner of that name; MobileCLIP2-S0 and mobileclip2_s0 are the same, and so for all.

    Raises:
        ValueError: unknown name; the message lists the closest known ones.
    """
    key = name.lower().replace("-", "_").replace(" ", "")
    key = _ALIASES.get(key, key)
    rows = {**VARIANTS, **CAPTIONERS}
    if key in rows:
        return rows[key]
    close = difflib.get_close_matches(key, rows, n=4, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(rows)}."
    raise ValueError(f"Unknown variant {name!r}: {hint}")
