"""transformers.js: a CLIP in onnx/, fed and read as that library feeds and reads one.

Facts: transformers.js 4.3, `CLIPTextModelWithProjection`, `CLIPVisionModelWithProjection`, `AutoTokenizer`,
`AutoProcessor`.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from pocketclip.checkpoint import Loaded
from pocketclip.data.sample import JsonValue
from pocketclip.data.words import END_OF_TEXT, START_OF_TEXT, byte_alphabet
from pocketclip.export.hosts.graphs import Ports, write_graph
from pocketclip.runtime.manifest import read_manifest

_RESAMPLE = {"bilinear": 2, "bicubic": 3}  # PIL's numbers
_DTYPES = {"fp32": ("fp32", ""), "fp16": ("fp16", "_fp16"), "int8": ("int8", "_int8")}


def write(folder: Path, loaded: Loaded, exported: Path | None) -> None:
    """Fills a folder.

    Args:
        folder: empty.
        loaded: the checkpoint.
        exported: its ONNX.
    """
    assert exported is not None
    dtype, suffix = _DTYPES[read_manifest(exported).precision]
    (folder / "onnx").mkdir()
    write_graph(
        exported,
        "image",
        folder / "onnx" / f"vision_model{suffix}.onnx",
        ports=Ports(input="pixel_values", output="image_embeds"),
    )
    write_graph(
        exported,
        "text",
        folder / "onnx" / f"text_model{suffix}.onnx",
        ports=Ports(input="input_ids", output="text_embeds"),
    )
    shutil.copyfile(exported / "tokenizer.json", folder / "tokenizer.json")
    files = {
        "config.json": _config(loaded, dtype=dtype),
        "preprocessor_config.json": _preprocessor(loaded),
        "tokenizer_config.json": _tokenizer(loaded),
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _config(loaded: Loaded, *, dtype: str) -> dict[str, JsonValue]:
    config = loaded.config
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.model.embed_dim,
        "logit_scale_init_value": math.log(float(loaded.model.logit_scale.detach().float().exp())),
        "text_config": {
            "model_type": "clip_text_model",
            "projection_dim": config.model.embed_dim,
            "vocab_size": config.tokenizer.vocab_size,
            "max_position_embeddings": config.tokenizer.context_length,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "projection_dim": config.model.embed_dim,
            "image_size": config.preprocess.size,
        },
        "transformers.js_config": {"dtype": dtype},  # otherwise its default, other files
    }


def _preprocessor(loaded: Loaded) -> dict[str, JsonValue]:
    preprocess = loaded.config.preprocess
    return {
        "image_processor_type": "CLIPImageProcessor",
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocess.size},
        "resample": _RESAMPLE[preprocess.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def _tokenizer(loaded: Loaded) -> dict[str, JsonValue]:
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": loaded.config.tokenizer.context_length,
        "bos_token": START_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "pad_token": byte_alphabet()[0],  # id 0
        "clean_up_tokenization_spaces": False,
    }
