"""pocketclip: small, fast image-text models from your own data, shipped to devices.

Models are used as in open_clip:

    model, _, preprocess = pocketclip.create_model_and_transforms("MobileCLIP2-S0", pretrained="checkpoint.safetensors")
    tokenize = pocketclip.get_tokenizer("MobileCLIP2-S0")
    image = preprocess(Image.open("photo.jpg")).unsqueeze(0)                # float32 [1, 3, 256, 256]
    image_embed = model.encode_image(image, normalize=True)                 # float32 [1, 512], unit norm
    text_embed = model.encode_text(tokenize(["a dog", "a cat"]), normalize=True)   # float32 [2, 512], unit norm

or by one record that holds all that belongs together, `pocketclip.load(path)`. Exported models run without torch:
`pocketclip.ExportedModel(folder)`.

Names are imported when they are first used, so that running and searching never import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketclip.checkpoint.conversion import convert
    from pocketclip.checkpoint.hub import save_to_hub
    from pocketclip.checkpoint.names import create_model_and_transforms, get_tokenizer, list_models
    from pocketclip.checkpoint.store import CheckpointConfig, Loaded, load, save
    from pocketclip.data.preprocess import Preprocess
    from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
    from pocketclip.models.clip import Clip, ClipConfig
    from pocketclip.models.fold import fold
    from pocketclip.runtime.session import ExportedModel
    from pocketclip.search.query import Hit, SearchIndex

__version__ = "0.1.0"

_HOMES = {
    "CheckpointConfig": "pocketclip.checkpoint.store",
    "Clip": "pocketclip.models.clip",
    "ClipConfig": "pocketclip.models.clip",
    "ExportedModel": "pocketclip.runtime.session",
    "Hit": "pocketclip.search.query",
    "Loaded": "pocketclip.checkpoint.store",
    "Preprocess": "pocketclip.data.preprocess",
    "SearchIndex": "pocketclip.search.query",
    "Tokenizer": "pocketclip.data.tokenize",
    "TokenizerConfig": "pocketclip.data.tokenize",
    "convert": "pocketclip.checkpoint.conversion",
    "create_model_and_transforms": "pocketclip.checkpoint.names",
    "fold": "pocketclip.models.fold",
    "get_tokenizer": "pocketclip.checkpoint.names",
    "list_models": "pocketclip.checkpoint.names",
    "load": "pocketclip.checkpoint.store",
    "save": "pocketclip.checkpoint.store",
    "save_to_hub": "pocketclip.checkpoint.hub",
}

__all__ = [
    "CheckpointConfig",
    "Clip",
    "ClipConfig",
    "ExportedModel",
    "Hit",
    "Loaded",
    "Preprocess",
    "SearchIndex",
    "Tokenizer",
    "TokenizerConfig",
    "convert",
    "create_model_and_transforms",
    "fold",
    "get_tokenizer",
    "list_models",
    "load",
    "save",
    "save_to_hub",
]


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pocketclip' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "cattrs"):
            raise ImportError(
                f"pocketclip.{name} needs {error.name}, which is not installed: pip install 'pocketclip[train]'"
            ) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
