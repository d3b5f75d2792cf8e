"""Networks: image towers, text towers, CLIP around them, captioners, and folding."""

from __future__ import annotations

from pocketclip.models.attention_pool import PoolConfig
from pocketclip.models.caption_text import DecoderConfig
from pocketclip.models.captioner import Captioner, CaptionerConfig, CaptionerOutput, network
from pocketclip.models.clip import Clip, ClipConfig, ClipOutput
from pocketclip.models.fastvit import FastViTConfig
from pocketclip.models.features import FeatureMap, FeaturePyramid
from pocketclip.models.fold import fold
from pocketclip.models.hybrid_text import HybridTextConfig
from pocketclip.models.text import TextConfig
from pocketclip.models.variants import CAPTIONERS, VARIANTS, Variant, variant
from pocketclip.models.vit import ViTConfig

__all__ = [
    "CAPTIONERS",
    "VARIANTS",
    "Captioner",
    "CaptionerConfig",
    "CaptionerOutput",
    "Clip",
    "ClipConfig",
    "ClipOutput",
    "DecoderConfig",
    "FastViTConfig",
    "FeatureMap",
    "FeaturePyramid",
    "HybridTextConfig",
    "PoolConfig",
    "TextConfig",
    "Variant",
    "ViTConfig",
    "fold",
    "network",
    "variant",
]
