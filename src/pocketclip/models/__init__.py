"""Networks: image towers, text towers, CLIP around them, and folding."""

from __future__ import annotations

from pocketclip.models.clip import Clip, ClipConfig, ClipOutput
from pocketclip.models.fastvit import FastViTConfig
from pocketclip.models.features import FeatureMap, FeaturePyramid
from pocketclip.models.fold import fold
from pocketclip.models.hybrid_text import HybridTextConfig
from pocketclip.models.text import TextConfig
from pocketclip.models.variants import VARIANTS, Variant, variant
from pocketclip.models.vit import ViTConfig

__all__ = [
    "VARIANTS",
    "Clip",
    "ClipConfig",
    "ClipOutput",
    "FastViTConfig",
    "FeatureMap",
    "FeaturePyramid",
    "HybridTextConfig",
    "TextConfig",
    "Variant",
    "ViTConfig",
    "fold",
    "variant",
]
