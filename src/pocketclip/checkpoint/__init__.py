"""The sole owner of weights on disk."""

from __future__ import annotations

from pocketclip.checkpoint.store import (
    CheckpointConfig,
    Loaded,
    create,
    load,
    load_state,
    save,
    save_state,
    structure,
    unstructure,
    variant_config,
)

__all__ = [
    "CheckpointConfig",
    "Loaded",
    "create",
    "load",
    "load_state",
    "save",
    "save_state",
    "structure",
    "unstructure",
    "variant_config",
]
