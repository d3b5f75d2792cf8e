"""immich's machine learning: visual/ and textual/, with the configuration of an open_clip model.

Facts: immich-machine-learning's `models/clip` of 2026. It resizes and crops as we do, and feeds one picture or text.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pocketclip.checkpoint import Loaded
from pocketclip.data.sample import JsonValue
from pocketclip.data.words import byte_alphabet
from pocketclip.export.hosts.graphs import Ports, write_graph


def write(folder: Path, loaded: Loaded, exported: Path | None) -> None:
    """Fills a folder.

    Args:
        folder: empty.
        loaded: the checkpoint.
        exported: its ONNX.
    """
    assert exported is not None
    config = loaded.config
    (folder / "visual").mkdir()
    (folder / "textual").mkdir()
    write_graph(
        exported, "image", folder / "visual" / "model.onnx", ports=Ports(input="image", output="embedding")
    )
    write_graph(
        exported,
        "text",
        folder / "textual" / "model.onnx",
        ports=Ports(input="text", output="embedding", has_int32=True),
    )
    shutil.copyfile(exported / "tokenizer.json", folder / "textual" / "tokenizer.json")
    size = config.preprocess.size
    files: dict[str, dict[str, JsonValue]] = {
        "config.json": {
            "embed_dim": config.model.embed_dim,
            "vision_cfg": {"image_size": size},
            "text_cfg": {
                "context_length": config.tokenizer.context_length,
                "vocab_size": config.tokenizer.vocab_size,
            },
        },
        "visual/preprocess_cfg.json": {
            "size": [size, size],
            "mode": "RGB",
            "mean": list(config.preprocess.mean),
            "std": list(config.preprocess.std),
            "interpolation": config.preprocess.interpolation,
            "resize_mode": "shortest",
            "fill_color": 0,
        },
        "textual/tokenizer_config.json": {
            "pad_token": byte_alphabet()[0],  # id 0
            "model_max_length": config.tokenizer.context_length,
        },
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
