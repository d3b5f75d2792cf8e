"""The sole owner of weights on disk."""

from __future__ import annotations

from pocketclip.checkpoint.conversion import Conversion, convert
from pocketclip.checkpoint.interpolate import interpolate
from pocketclip.checkpoint.loaded import CheckpointConfig, Loaded, create, variant_config
from pocketclip.checkpoint.records import structure, unstructure
from pocketclip.checkpoint.state import load_state, save_state
from pocketclip.checkpoint.store import load, save
from pocketclip.models.captioner import Captioner, CaptionerConfig
from pocketclip.models.generate import NotFiniteError, Style, Writer

__all__ = [
    "Captioner",
    "CaptionerConfig",
    "CheckpointConfig",
    "Conversion",
    "Loaded",
    "NotFiniteError",
    "Style",
    "Writer",
    "convert",
    "create",
    "interpolate",
    "load",
    "load_state",
    "save",
    "save_state",
    "structure",
    "unstructure",
    "variant_config",
]
