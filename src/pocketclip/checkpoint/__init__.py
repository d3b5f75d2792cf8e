"""The sole owner of weights on disk."""

from __future__ import annotations

from pocketclip.checkpoint.conversion import Conversion, convert
from pocketclip.checkpoint.interpolate import interpolate
from pocketclip.checkpoint.loaded import CheckpointConfig, Loaded, create, variant_config
from pocketclip.checkpoint.records import structure, unstructure
from pocketclip.checkpoint.state import load_state, save_state
from pocketclip.checkpoint.store import from_open_clip, load, save
from pocketclip.models.captioner import Captioner, CaptionerConfig
from pocketclip.models.generate import NotFiniteError, Style, Writer
from pocketclip.models.generate_choice import choose, noise

__all__ = [
    "Captioner",
    "CaptionerConfig",
    "CheckpointConfig",
    "Conversion",
    "Loaded",
    "NotFiniteError",
    "Style",
    "Writer",
    "choose",
    "convert",
    "create",
    "from_open_clip",
    "interpolate",
    "load",
    "load_state",
    "noise",
    "save",
    "save_state",
    "structure",
    "unstructure",
    "variant_config",
]
