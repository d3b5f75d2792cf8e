from __future__ import annotations

import dataclasses
import json

import pytest

from pocketclip.models import VARIANTS, FastViTConfig, variant


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "mobileclip2_s0", "mobileclip2-s0", "MOBILECLIP2_S0"])
def test_both_spellings_are_one_variant(name) -> None:
    assert variant(name) is VARIANTS["mobileclip2_s0"]


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


def test_s0_is_the_published_row() -> None:
    row = VARIANTS["mobileclip2_s0"]
    text = row.model.text
    assert (row.image_px, row.mean, row.std, row.interpolation) == (256, (0, 0, 0), (1, 1, 1), "bilinear")
    assert (text.vocab_size, text.context_length, text.causal) == (49408, 77, False)
    assert row.model.embed_dim == 512
