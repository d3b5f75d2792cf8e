"""sentence-transformers: the checkpoint, and a module of this package that embeds with it."""

from __future__ import annotations

import json
from pathlib import Path

from pocketclip.checkpoint import Loaded, save

CHECKPOINT_FILE = "checkpoint.safetensors"
_MODULE = "pocketclip.export.hosts.sentence_module.PocketClip"


def write(folder: Path, loaded: Loaded, exported: Path | None) -> None:
    """Fills a folder.

    Args:
        folder: empty.
        loaded: the checkpoint.
        exported: not needed.
    """
    assert exported is None
    save(folder / CHECKPOINT_FILE, loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
    modules = [{"idx": 0, "name": "0", "path": "", "type": _MODULE}]
    settings = {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine", "prompts": {}}
    for name, values in (("modules.json", modules), ("config_sentence_transformers.json", settings)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
