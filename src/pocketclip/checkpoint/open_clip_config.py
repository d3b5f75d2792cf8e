"""A hub folder's open_clip_config.json: what it says of a model, read strictly and written so that open_clip takes it.

Facts: open_clip 3.3, its configuration files and the defaults of its records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pocketclip.checkpoint.loaded import CheckpointConfig, architecture, tokenizer_of
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.models.attention_pool import PoolConfig
from pocketclip.models.caption_text import DecoderConfig
from pocketclip.models.captioner import CaptionerConfig
from pocketclip.models.clip import ClipConfig
from pocketclip.models.fastvit import FastViTConfig
from pocketclip.models.text import TextConfig
from pocketclip.models.variants import CLIP_MEAN, CLIP_STD, MCI0, MCI1, MCI2, MCI3, MCI4, VIT_B, VIT_L
from pocketclip.models.vit import ViTConfig

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"

# timm's name of an image tower, and how open_clip pools it.
_TIMM_TOWERS: Mapping[str, tuple[FastViTConfig | ViTConfig, str]] = MappingProxyType(
    {
        "fastvit_mci0": (MCI0, "avg"),
        "fastvit_mci1": (MCI1, "avg"),
        "fastvit_mci2": (MCI2, "avg"),
        "fastvit_mci3": (MCI3, "avg"),
        "fastvit_mci4": (MCI4, "avg"),
        "vit_base_mci_224": (VIT_B, "token"),
        "vit_large_patch14_clip_224": (VIT_L, "token"),
    }
)
# What makes a ViT here open_clip's own plain one, and its caption decoders' feed-forward networks.
_OPEN_CLIP_VIT: Mapping[str, Any] = MappingProxyType(
    {"stem": "patch", "pool": "cls", "class_position": True, "pre_norm": True, "norm_eps": 1e-5}
)
_DECODER_MLP_RATIO = 4.0
_ANY: tuple[object, ...] = ()
# Fields that open_clip has and the values that leave the model as it is here; `_ANY`: training alone sees it.
_MODEL_FIELDS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "embed_dim": _ANY,
        "vision_cfg": _ANY,
        "text_cfg": _ANY,
        "multimodal_cfg": _ANY,  # of a captioner
        "custom_text": _ANY,
        "quick_gelu": (False,),
        "init_logit_scale": _ANY,
        "init_logit_bias": (None,),
        "nonscalar_logit_scale": _ANY,
    }
)
_VISION_FIELDS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "timm_model_name": tuple(_TIMM_TOWERS),
        "timm_model_pretrained": _ANY,
        "timm_pool": _ANY,  # looked at with the tower
        "timm_proj": (None, ""),
        "timm_proj_bias": _ANY,
        "timm_drop": _ANY,
        "timm_drop_path": _ANY,
        "patch_dropout": _ANY,
        "image_size": _ANY,
    }
)
_TEXT_FIELDS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "context_length": _ANY,
        "vocab_size": _ANY,
        "width": _ANY,
        "heads": _ANY,
        "layers": _ANY,
        "mlp_ratio": _ANY,
        "no_causal_mask": _ANY,
        "hf_tokenizer_name": _ANY,  # noted
        "tokenizer_kwargs": (None, {}),
        "pool_type": ("argmax",),
        "proj_type": ("linear",),
        "proj_bias": (False,),
        "embed_cls": (False,),
        "final_ln_after_pool": (False,),
        "ls_init_value": (None,),
        "pad_id": (0,),
        "eos_id": _ANY,
        "output_tokens": _ANY,
        "act_kwargs": (None, {}),
        "norm_kwargs": (None, {}),
    }
)
# Of a captioner: a plain ViT of open_clip's own instead of timm's, a class token after the text, and the decoder.
_POOLED_VISION_FIELDS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "image_size": _ANY,
        "patch_size": _ANY,
        "width": _ANY,
        "layers": _ANY,
        "head_width": _ANY,
        "mlp_ratio": _ANY,
        "attentional_pool": (True,),
        "attn_pooler_queries": _ANY,
        "attn_pooler_heads": _ANY,
        "patch_dropout": _ANY,
        "output_tokens": (True,),
        "final_ln_after_pool": _ANY,  # not looked at where attention pools
        "pool_type": ("tok",),
        "no_ln_pre": (False,),
        "pos_embed_type": _ANY,  # its numbers are in the weights
        "ls_init_value": (None,),
        "act_kwargs": (None, {}),
        "norm_kwargs": (None, {}),
        "timm_model_name": (None, ""),
    }
)
_CLASS_TEXT_FIELDS = _TEXT_FIELDS | {"embed_cls": (True,), "no_causal_mask": (False,), "pool_type": _ANY}
_DECODER_FIELDS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "context_length": _ANY,
        "vocab_size": _ANY,
        "width": _ANY,
        "heads": _ANY,
        "layers": _ANY,
        "mlp_ratio": _ANY,  # open_clip takes 4 whatever this says
        "dim_head": _ANY,  # these three are not looked at
        "n_queries": _ANY,
        "attn_pooler_heads": _ANY,
        "ls_init_value": (None,),
        "act_kwargs": (None, {}),
        "norm_kwargs": (None, {}),
    }
)
_PREPROCESS_FIELDS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "size": _ANY,  # open_clip takes the tower's image_size
        "mode": ("RGB",),
        "mean": _ANY,
        "std": _ANY,
        "interpolation": _ANY,
        "resize_mode": ("shortest",),
        "fill_color": _ANY,
    }
)


def timm_name(image: FastViTConfig | ViTConfig) -> str | None:
    """Timm's name of an image tower, None where it has none; `timm.create_model(name, num_classes=embed_dim)`."""
    for name, (tower, _) in _TIMM_TOWERS.items():
        if _tower_alone(tower) == _tower_alone(image) and getattr(tower, "image_px", 0) == getattr(
            image, "image_px", 0
        ):
            return name
    return None


def to_open_clip(config: CheckpointConfig, *, tokenizer: Tokenizer) -> dict[str, Any]:
    """What open_clip_config.json says of a model.

    Raises:
        ValueError: open_clip cannot make this model: another text tower, an image tower without a name in timm, a
            vocabulary that is not CLIP's; the sentence says which.
    """
    model, preprocess = config.model, config.preprocess
    described = (
        _captioner_fields(model)
        if isinstance(model, CaptionerConfig)
        else _clip_fields(model, image_px=preprocess.size)
    )
    clips = TokenizerConfig()
    if config.tokenizer.vocab_size != clips.vocab_size or tokenizer.merges != Tokenizer(clips).merges:
        raise ValueError("open_clip has no tokenizer but CLIP's, and this model has another vocabulary")
    return {
        "model_cfg": {"embed_dim": model.embed_dim, **described, "custom_text": True},
        "preprocess_cfg": {
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "resize_mode": "shortest",
        },
    }


def _clip_fields(model: ClipConfig, *, image_px: int) -> dict[str, Any]:
    if not isinstance(model.text, TextConfig):
        raise ValueError(f"open_clip has no {model.text.kind} text tower")
    name = timm_name(model.image)
    if name is None:
        raise ValueError(
            f"open_clip makes image towers by timm's names, and this one has none: {model.image}"
        )
    vision = {
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": _TIMM_TOWERS[name][1],
        "timm_proj": None,
        "timm_drop": 0.0,
        "timm_drop_path": model.image.drop_path,
        "image_size": image_px,
    }
    return {"vision_cfg": vision, "text_cfg": _text_fields(model.text)}


def _captioner_fields(model: CaptionerConfig) -> dict[str, Any]:
    image, text, decoder = model.image, model.text, model.decoder
    if not isinstance(image, ViTConfig) or replace(image, **_OPEN_CLIP_VIT) != image:
        raise ValueError(
            f"open_clip's captioners have plain ViTs as image towers, and this one has another: {image}"
        )
    if decoder.mlp_ratio != _DECODER_MLP_RATIO:
        raise ValueError(
            f"open_clip's caption decoders have mlp_ratio 4, and this one's is {decoder.mlp_ratio}"
        )
    vision = {
        "image_size": image.image_px,
        "patch_size": image.patch_px,
        "width": image.width,
        "layers": image.layers,
        "head_width": image.width // image.heads,
        "mlp_ratio": image.mlp_ratio,
        "attentional_pool": True,
        "attn_pooler_queries": model.pool.num_queries,
        "attn_pooler_heads": model.pool.heads,
        "output_tokens": True,
    }
    multimodal = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": decoder.heads,
        "layers": decoder.layers,
    }
    own = _text_fields(text) | {"embed_cls": True, "output_tokens": True}
    return {"vision_cfg": vision, "text_cfg": own, "multimodal_cfg": multimodal}


def _text_fields(text: TextConfig) -> dict[str, Any]:
    return {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
        "mlp_ratio": text.mlp_ratio,
        "no_causal_mask": not text.causal,
    }


def read_open_clip(path: Path) -> tuple[CheckpointConfig, tuple[str, ...]]:
    """The configuration in a file open_clip_config.json, and notes on it, a sentence each.

    Raises:
        ValueError: not JSON, another kind of model, or fields that would make another model; they are named.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): copy or download it again") from None
    return understand(values, where=str(path))


def understand(values: object, *, where: str) -> tuple[CheckpointConfig, tuple[str, ...]]:
    """As `read_open_clip`, of the values that such a file holds; `where` they are from is in the sentences."""
    top = _record(values, where=f"{where}:")
    model = _fields(top.get("model_cfg"), _MODEL_FIELDS, where=f"{where}: model_cfg")
    preprocess = _fields(
        top.get("preprocess_cfg") or {}, _PREPROCESS_FIELDS, where=f"{where}: preprocess_cfg"
    )
    writes = model.get("multimodal_cfg") is not None
    vision_fields, text_fields = (
        (_POOLED_VISION_FIELDS, _CLASS_TEXT_FIELDS) if writes else (_VISION_FIELDS, _TEXT_FIELDS)
    )
    vision = _fields(model.get("vision_cfg"), vision_fields, where=f"{where}: vision_cfg")
    text = _fields(model.get("text_cfg"), text_fields, where=f"{where}: text_cfg")
    if writes:
        _fields(model["multimodal_cfg"], _DECODER_FIELDS, where=f"{where}: multimodal_cfg")
    notes = []
    if text.get("hf_tokenizer_name"):
        notes.append(
            f"{CONFIG_FILE} names the tokenizer {text['hf_tokenizer_name']}; texts are tokenized as CLIP does it, "
            "padded with zeros"
        )
    try:
        config = _structured(model, vision, text, preprocess)
    except KeyError as error:
        raise ValueError(f"{where} lacks the field {error}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} describes no model that can be made here: {error}") from None
    return config, tuple(notes)


def _structured(
    model: Mapping[str, Any],
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    preprocess: Mapping[str, Any],
) -> CheckpointConfig:
    tower = TextConfig(
        vocab_size=_whole(text, "vocab_size", 49408),
        context_length=_whole(text, "context_length", 77),
        width=_whole(text, "width", 512),
        heads=_whole(text, "heads", 8),
        layers=_whole(text, "layers", 12),
        mlp_ratio=float(text.get("mlp_ratio", 4.0)),
        causal=not text.get("no_causal_mask", False),
    )
    size = vision.get("image_size", 224)
    sides = set(size) if isinstance(size, list) else {size}
    if len(sides) != 1:
        raise ValueError(f"image_size is {size!r}, and pictures are square here")
    side = sides.pop()
    if model.get("multimodal_cfg") is not None:
        towers: ClipConfig = _captioner(model, vision, text=tower, image_px=side)
    else:
        image, pool = _TIMM_TOWERS[vision["timm_model_name"]]
        if vision.get("timm_pool", pool) not in (pool, "", None):
            raise ValueError(f"timm_pool is {vision['timm_pool']!r}, expected {pool!r}")
        towers = ClipConfig(image=image, text=tower, embed_dim=_whole(model, "embed_dim", None))
    return CheckpointConfig(
        model=towers,
        preprocess=Preprocess.from_json(
            {
                "size": side,
                "mean": preprocess.get("mean", list(CLIP_MEAN)),
                "std": preprocess.get("std", list(CLIP_STD)),
                "interpolation": preprocess.get("interpolation", "bicubic"),
            }
        ),
        tokenizer=tokenizer_of(towers),
    )


def _captioner(
    model: Mapping[str, Any], vision: Mapping[str, Any], *, text: TextConfig, image_px: int
) -> CaptionerConfig:
    decoder = model["multimodal_cfg"]
    width, context_length = _whole(decoder, "width", 512), _whole(decoder, "context_length", 77)
    if width != text.width or context_length < text.context_length:
        raise ValueError(
            f"multimodal_cfg has width {width} and context_length {context_length}, its text tower width {text.width} "
            f"and context_length {text.context_length}, which it cannot go on with"
        )
    image_width = _whole(vision, "width", 768)
    image = ViTConfig(
        image_px=image_px,
        patch_px=_whole(vision, "patch_size", 16),
        width=image_width,
        heads=image_width // _whole(vision, "head_width", 64),
        layers=_whole(vision, "layers", 12),
        mlp_ratio=float(vision.get("mlp_ratio", 4.0)),
        **_OPEN_CLIP_VIT,
    )
    return CaptionerConfig(
        image=image,
        text=text,
        embed_dim=_whole(model, "embed_dim", None),
        pool=PoolConfig(
            num_queries=_whole(vision, "attn_pooler_queries", 256),
            heads=_whole(vision, "attn_pooler_heads", 8),
        ),
        decoder=DecoderConfig(heads=_whole(decoder, "heads", 8), layers=_whole(decoder, "layers", 12)),
    )


def _whole(values: Mapping[str, Any], name: str, default: int | None) -> int:
    value = values[name] if default is None else values.get(name, default)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}, not a positive whole number")
    return value


def _record(values: object, *, where: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{where} expected an object of JSON, got {values!r:.60}")
    return values


def _fields(values: object, known: Mapping[str, tuple[object, ...]], *, where: str) -> Mapping[str, Any]:
    record = _record(values, where=where)
    for name, value in record.items():
        allowed = known.get(name)
        if allowed is None:
            raise ValueError(f"{where} has the field {name} ({value!r:.60}), which pocketclip does not know")
        if allowed and value not in allowed:
            raise ValueError(
                f"{where} has {name} {value!r:.60}, a model that pocketclip does not have; it knows "
                f"{', '.join(map(repr, allowed))}"
            )
    return record


def _tower_alone(image: FastViTConfig | ViTConfig) -> FastViTConfig | ViTConfig:
    text = TextConfig(width=8, heads=1, layers=1)
    return architecture(ClipConfig(image=image, text=text, embed_dim=1)).image
