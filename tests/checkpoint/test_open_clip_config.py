"""open_clip_config.json: written as open_clip reads it, read strictly, and the same after both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoint.conftest import other_merges

from pocketclip.checkpoint import variant_config
from pocketclip.checkpoint.loaded import CheckpointConfig, same_architecture, tokenizer_of
from pocketclip.checkpoint.open_clip_config import read_open_clip, timm_name, to_open_clip
from pocketclip.data.tokenize import Tokenizer
from pocketclip.models import VARIANTS

NAMES = [name for name in VARIANTS if name.startswith("mobileclip") and name != "mobileclip_s0"]


def values_of(config: CheckpointConfig) -> dict[str, Any]:
    return to_open_clip(config, tokenizer=Tokenizer(config.tokenizer))


def written(tmp_path: Path, values: object) -> Path:
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps(values))
    return path


def refused(tmp_path: Path, values: object, *, saying: str) -> None:
    path = written(tmp_path, values)
    with pytest.raises(ValueError, match=saying) as caught:
        read_open_clip(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_as_the_same(tmp_path, name):
    config = variant_config(name)
    assert read_open_clip(written(tmp_path, values_of(config))) == (config, ())


def test_other_sizes_means_and_lengths_come_back(tmp_path):
    config = variant_config("mobileclip2_s2")
    model = replace(config.model, text=replace(config.model.text, context_length=200, causal=True))
    preprocess = replace(
        config.preprocess, size=384, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), interpolation="bicubic"
    )
    config = replace(config, model=model, preprocess=preprocess, tokenizer=tokenizer_of(model))
    assert read_open_clip(written(tmp_path, values_of(config))) == (config, ())


@pytest.mark.reference
@pytest.mark.parametrize("name", NAMES)
def test_open_clip_says_the_same_of_its_models(name):
    factory = pytest.importorskip("open_clip.factory")
    named = {
        "mobileclip_s1": "MobileCLIP-S1",
        "mobileclip_s2": "MobileCLIP-S2",
        "mobileclip_b": "MobileCLIP-B",
    }
    newer = name.replace("mobileclip_", "mobileclip2_").replace("blt", "b").removeprefix("mobileclip2_")
    theirs = factory.get_model_config(named.get(name, f"MobileCLIP2-{newer.upper().replace('_', '-')}"))
    ours = values_of(variant_config(name))["model_cfg"]
    ours["vision_cfg"]["timm_drop_path"] = theirs["vision_cfg"]["timm_drop_path"]  # training alone sees it
    assert ours["text_cfg"].pop("mlp_ratio") == 4.0
    assert ours == theirs


@pytest.mark.reference
def test_published_preprocessing_is_the_variants():
    pretrained = pytest.importorskip("open_clip.pretrained")
    for name, tag, variant in (
        ("MobileCLIP-S1", "datacompdr", "mobileclip_s1"),
        ("MobileCLIP-S2", "datacompdr", "mobileclip_s2"),
        ("MobileCLIP-B", "datacompdr", "mobileclip_b"),
        ("MobileCLIP-B", "datacompdr_lt", "mobileclip_blt"),
        ("MobileCLIP2-S0", "dfndr2b", "mobileclip2_s0"),
        ("MobileCLIP2-S2", "dfndr2b", "mobileclip2_s2"),
        ("MobileCLIP2-B", "dfndr2b", "mobileclip2_b"),
        ("MobileCLIP2-S3", "dfndr2b", "mobileclip2_s3"),
        ("MobileCLIP2-S4", "dfndr2b", "mobileclip2_s4"),
        ("MobileCLIP2-L-14", "dfndr2b", "mobileclip2_l_14"),
    ):
        theirs = pretrained.get_pretrained_cfg(name, tag)
        ours = variant_config(variant).preprocess
        assert (theirs["mean"], theirs["std"]) == (ours.mean, ours.std), name
        assert (theirs["interpolation"], theirs["resize_mode"]) == (ours.interpolation, "shortest"), name


@pytest.mark.reference
def test_what_is_left_out_has_open_clips_defaults(tmp_path):
    transform = pytest.importorskip("open_clip.transform")
    model = pytest.importorskip("open_clip.model")
    values = {
        "model_cfg": {"embed_dim": 512, "vision_cfg": {"timm_model_name": "fastvit_mci0"}, "text_cfg": {}}
    }
    config, _ = read_open_clip(written(tmp_path, values))
    theirs = transform.PreprocessCfg()
    assert (config.preprocess.mean, config.preprocess.std) == (theirs.mean, theirs.std)
    assert config.preprocess.interpolation == theirs.interpolation
    assert config.preprocess.size == model.CLIPVisionCfg().image_size
    text = model.CLIPTextCfg()
    assert (config.model.text.width, config.model.text.heads, config.model.text.layers) == (
        text.width, text.heads, text.layers,
    )  # fmt: skip
    assert config.model.text.causal is not text.no_causal_mask
    assert config.tokenizer.context_length == text.context_length


def test_a_tokenizer_of_another_library_is_noted(tmp_path):
    values = values_of(variant_config("mobileclip2_s0"))
    values["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "openai/clip-vit-large-patch14"
    config, notes = read_open_clip(written(tmp_path, values))
    assert config == variant_config("mobileclip2_s0")
    assert len(notes) == 1
    assert (
        "names the tokenizer openai/clip-vit-large-patch14; texts are tokenized as CLIP does it" in notes[0]
    )


@pytest.mark.parametrize(
    ("place", "field", "value", "saying"),
    [
        ("model_cfg", "multimodal_cfg", {}, "timm_model_name 'fastvit_mci0'"),
        (
            "model_cfg",
            "quick_gelu",
            True,
            "has quick_gelu True, a model that pocketclip does not have; it knows False",
        ),
        ("model_cfg", "embed_dim", "512", "embed_dim is '512', not a positive whole number"),
        ("model_cfg", "embed_dim", None, "embed_dim is None"),
        ("model_cfg", "vision_cfg", None, "vision_cfg expected an object of JSON, got None"),
        ("model_cfg", "text_cfg", [], r"text_cfg expected an object of JSON, got \[\]"),
        (
            "vision_cfg",
            "timm_model_name",
            "convnext_base",
            "timm_model_name 'convnext_base', .* it knows 'fast",
        ),
        ("vision_cfg", "timm_pool", "map", "timm_pool is 'map', expected 'avg'"),
        ("vision_cfg", "timm_proj", "linear", "timm_proj 'linear'"),
        ("vision_cfg", "layers", 12, "vision_cfg has the field layers"),
        ("vision_cfg", "image_size", [256, 224], r"image_size is \[256, 224\], and pictures are square"),
        ("vision_cfg", "image_size", "256", "preprocess.size must be an integer"),
        ("text_cfg", "hf_model_name", "roberta-base", "text_cfg has the field hf_model_name"),
        ("text_cfg", "pool_type", "last", "pool_type 'last'"),
        ("text_cfg", "pad_id", 1, "pad_id 1"),
        ("text_cfg", "width", 0, "width is 0, not a positive whole number"),
        ("text_cfg", "heads", 7, "not a multiple of heads 7"),
        ("preprocess_cfg", "resize_mode", "squash", "resize_mode 'squash'"),
        ("preprocess_cfg", "interpolation", "nearest", "preprocess.interpolation is 'nearest'"),
        ("preprocess_cfg", "std", [0.0, 1.0, 1.0], "preprocess.std"),
        ("preprocess_cfg", "crop_pct", 0.9, "preprocess_cfg has the field crop_pct"),
    ],
)
def test_what_would_make_another_model_is_refused_and_named(tmp_path, place, field, value, saying):
    values = values_of(variant_config("mobileclip2_s0"))
    record = values if place in values else values["model_cfg"]
    record[place][field] = value
    refused(tmp_path, values, saying=saying)


@pytest.mark.parametrize("values", [{}, {"model_cfg": {"embed_dim": 512}}, {"preprocess_cfg": {}}])
def test_missing_parts_are_told(tmp_path, values):
    refused(tmp_path, values, saying="_cfg expected an object of JSON, got None")


@pytest.mark.parametrize("field", ["embed_dim", "timm_model_name"])
def test_missing_fields_are_named(tmp_path, field):
    values = values_of(variant_config("mobileclip2_s0"))
    values["model_cfg"].pop(field, None)
    values["model_cfg"]["vision_cfg"].pop(field, None)
    refused(tmp_path, values, saying=f"lacks the field '{field}'")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"<html>"])
def test_what_is_no_json_is_told(tmp_path, content):
    path = tmp_path / "open_clip_config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"open_clip_config\.json is not JSON"):
        read_open_clip(path)


def test_what_open_clip_cannot_make_is_told():
    s0, tiny = variant_config("mobileclip_s0"), variant_config("pocketclip_tiny")
    large = variant_config("mobileclip2_l_14")
    wider = replace(large, model=replace(large.model, image=replace(large.model.image, image_px=336)))
    for config, saying in (
        (s0, "open_clip has no hybrid text tower"),
        (tiny, "open_clip makes image towers by timm's names, and this one has none: FastViTConfig"),
        (variant_config("mci2_scaled"), "this one has none"),
        (wider, "this one has none: .*image_px=336"),
    ):
        with pytest.raises(ValueError, match=saying):
            values_of(config)
    config = variant_config("mobileclip2_s0")
    merges = other_merges(Tokenizer(config.tokenizer).merges, num=config.tokenizer.num_merges)
    with pytest.raises(ValueError, match="another vocabulary"):
        to_open_clip(config, tokenizer=Tokenizer(config.tokenizer, merges=merges))


def test_timms_names():
    names = {name: timm_name(row.model.image) for name, row in VARIANTS.items()}
    assert names["mobileclip_s0"] == names["mobileclip2_s0"] == "fastvit_mci0"
    assert names["mobileclip_blt"] == "vit_base_mci_224"
    assert {name for name, found in names.items() if found is None} == {
        "mci2_scaled", "pocketclip_tiny", "pocketclip_tiny_vit", "pocketclip_tiny_teacher",
    }  # fmt: skip


def test_what_training_alone_sees_makes_no_other_architecture():
    for name in ("mobileclip2_s0", "mobileclip2_b", "mobileclip_s0"):
        model = variant_config(name).model
        trained = replace(model, image=replace(model.image, drop_path=0.1))
        longer = replace(trained, text=replace(trained.text, context_length=200))
        assert same_architecture(model, longer)
        assert not same_architecture(model, replace(model, embed_dim=8))
    model = variant_config("mobileclip2_s0").model
    assert not same_architecture(model, replace(model, text=replace(model.text, causal=True)))
    assert timm_name(replace(model.image, drop_path=0.3, layer_scale_init=1.0)) == "fastvit_mci0"
