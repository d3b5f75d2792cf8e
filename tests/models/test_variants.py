from __future__ import annotations

import dataclasses
import json

import pytest

from pocketclip.models import VARIANTS, FastViTConfig, TextConfig, variant


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "mobileclip2_s0", "mobileclip2-s0", "MOBILECLIP2_S0"])
def test_both_spellings_are_one_variant(name) -> None:
    assert variant(name) is VARIANTS["mobileclip2_s0"]


@pytest.mark.parametrize(
    "name", ["MobileCLIP-B(LT)", "MobileCLIP-B (LT)", "MobileCLIP-BLT", "mobileclip_b_lt", "MobileCLIP-B-LT"]
)
def test_the_longer_trained_b_has_many_names(name) -> None:
    assert variant(name) is VARIANTS["mobileclip_blt"]


@pytest.mark.parametrize("name", ["MobileCLIP2-L-14", "MobileCLIP2-L/14", "mobileclip2_l14"])
def test_the_largest_has_many_names(name) -> None:
    assert variant(name) is VARIANTS["mobileclip2_l_14"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MobileCLIP2-SO", "did you mean .*mobileclip2_s0"),
        ("pocketclip-tiny-vti", "pocketclip_tiny_vit"),
        ("resnet50", "known are .*mobileclip2_s0.*pocketclip_tiny"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name, hint) -> None:
    with pytest.raises(ValueError, match=f"Unknown variant '{name}'.*{hint}"):
        variant(name)


def test_rows_agree_with_themselves() -> None:
    for key, row in VARIANTS.items():
        assert row.name == key
        assert row.model.image.kind in ("fastvit", "vit")
        if not isinstance(row.model.image, FastViTConfig):
            assert row.model.image.image_px == row.image_px


def test_configs_are_frozen_and_plain_json() -> None:
    for row in VARIANTS.values():
        as_dict = dataclasses.asdict(row.model)
        assert json.loads(json.dumps(as_dict)) == json.loads(json.dumps(as_dict, default=None))
        with pytest.raises(dataclasses.FrozenInstanceError):
            row.model.embed_dim = 1


# What the release says: width of the embedding, pixels, width, heads and blocks of the text tower, causal or not.
PUBLISHED = {
    "mobileclip_s0": (512, 256, 512, 8, 4, False),
    "mobileclip_s1": (512, 256, 512, 8, 12, False),
    "mobileclip_s2": (512, 256, 512, 8, 12, False),
    "mobileclip_b": (512, 224, 512, 8, 12, True),
    "mobileclip_blt": (512, 224, 512, 8, 12, True),
    "mobileclip_s3": (768, 256, 768, 12, 12, False),
    "mobileclip_s4": (768, 256, 768, 12, 12, False),
    "mobileclip_l_14": (768, 224, 768, 12, 12, False),
    "mobileclip2_s0": (512, 256, 512, 8, 12, False),
    "mobileclip2_s2": (512, 256, 512, 8, 12, False),
    "mobileclip2_b": (512, 224, 512, 8, 12, True),
    "mobileclip2_s3": (768, 256, 768, 12, 12, False),
    "mobileclip2_s4": (768, 256, 768, 12, 12, False),
    "mobileclip2_l_14": (768, 224, 768, 12, 12, False),
}
OPEN_CLIP = {
    "MobileCLIP-S1": "datacompdr",
    "MobileCLIP-S2": "datacompdr",
    "MobileCLIP-B": "datacompdr_lt",
    "MobileCLIP2-S0": "dfndr2b",
    "MobileCLIP2-S2": "dfndr2b",
    "MobileCLIP2-B": "dfndr2b",
    "MobileCLIP2-S3": "dfndr2b",
    "MobileCLIP2-S4": "dfndr2b",
    "MobileCLIP2-L-14": "dfndr2b",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_are_the_published_ones(name) -> None:
    row = VARIANTS[name]
    text = row.model.text
    causal = isinstance(text, TextConfig) and text.causal
    assert (row.model.embed_dim, row.image_px, text.width, text.heads, text.layers, causal) == PUBLISHED[name]
    assert (text.vocab_size, text.context_length) == (49408, 77)
    assert (row.interpolation == "bicubic") == name.endswith("l_14")
    assert (row.mean == (0, 0, 0)) == (row.std == (1, 1, 1)) == (not name.endswith(("s3", "s4", "l_14")))


def test_stochastic_depth_is_a_matter_of_recipes_and_layer_scales_start_as_published() -> None:
    for name in PUBLISHED:
        image, text = VARIANTS[name].model.image, VARIANTS[name].model.text
        assert image.drop_path == 0
        for tower in (image, text):
            assert getattr(tower, "layer_scale_init", 1e-5) == 1e-5


def test_every_variant_is_published_or_ours() -> None:
    ours = {"mci2_scaled", "pocketclip_tiny", "pocketclip_tiny_vit", "pocketclip_tiny_teacher"}
    assert set(VARIANTS) == set(PUBLISHED) | ours


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", OPEN_CLIP)
def test_rows_are_those_of_open_clip(name) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = open_clip.get_model_config(name)
    row = variant(name)
    text = row.model.text
    assert row.model.embed_dim == config["embed_dim"]
    assert row.image_px == config["vision_cfg"]["image_size"]
    theirs = config["text_cfg"]
    for field in ("context_length", "vocab_size", "width", "heads", "layers"):
        assert getattr(text, field) == theirs[field]
    assert text.causal == (not theirs["no_causal_mask"])
    pictures = open_clip.get_pretrained_cfg(name, OPEN_CLIP[name])
    assert (row.mean, row.std, row.interpolation) == tuple(
        pictures[field] for field in ("mean", "std", "interpolation")
    )
    assert pictures["resize_mode"] == "shortest"
