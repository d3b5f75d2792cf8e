"""Every stage's map, as a dense task wants it, is what the embedding is made of."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.models import VARIANTS, Clip, FastViTConfig, ViTConfig, fold
from pocketclip.models.fastvit import FastViT
from pocketclip.models.vit import ViT


@torch.no_grad()
def test_maps_have_their_strides_and_channels_and_make_the_embedding(narrow, batch) -> None:
    model = Clip(narrow.model).eval()
    image_BCHW, _ = batch(narrow, 2)
    features = model.forward_features(image_BCHW)
    image = narrow.model.image
    if isinstance(image, FastViTConfig):
        expected = [(4 << index, width) for index, width in enumerate(image.widths)]
    else:
        expected = [(image.patch_px, image.width)]
    assert [(one.stride, one.channels) for one in features.maps] == expected
    for one in features.maps:
        side = narrow.image_px // one.stride
        assert one.map_BCHW.shape == (2, one.channels, side, side)
    assert torch.equal(model.image.embed(features), model.encode_image(image_BCHW))


@torch.no_grad()
def test_folded_maps_are_the_same(narrow, batch, scramble, relative_error) -> None:
    model = scramble(Clip(narrow.model))
    image_BCHW, _ = batch(narrow, 1)
    pairs = zip(
        fold(model).forward_features(image_BCHW).maps, model.forward_features(image_BCHW).maps, strict=True
    )
    for folded, plain in pairs:
        assert relative_error(folded.map_BCHW, plain.map_BCHW) < 1e-5
        assert folded.stride == plain.stride


@given(height=st.integers(1, 150), width=st.integers(1, 150))
@settings(max_examples=25)
@torch.no_grad()
def test_sides_are_rounded_up(height: int, width: int) -> None:
    tower = FastViT(FastViTConfig(widths=(4, 8, 16), depths=(1, 1, 1), head_channels=8), embed_dim=4).eval()
    for one in tower.forward_features(torch.zeros(1, 3, height, width)).maps:
        assert one.map_BCHW.shape[2:] == (-(-height // one.stride), -(-width // one.stride))


@pytest.mark.reference
@pytest.mark.parametrize("px", [224, 256, 288, 300, 512])
@pytest.mark.parametrize("name", ["fastvit_mci2", "fastvit_mci3"])
@torch.no_grad()
def test_any_size_of_picture_equals_timm(name, px, image_from_timm, scramble, relative_error) -> None:
    timm = pytest.importorskip("timm")
    row = VARIANTS["mobileclip2_s3" if name.endswith("3") else "mobileclip2_s2"].model.image
    stages = len(row.widths)
    config = dataclasses.replace(
        row, widths=tuple(16 << index for index in range(stages)), depths=(1,) * stages
    )
    reference = timm.create_model(name, num_classes=8, layers=config.depths, embed_dims=config.widths)
    ours = FastViT(config, embed_dim=8).eval()
    ours.load_state_dict(image_from_timm(scramble(reference).state_dict()), strict=True)
    image_BCHW = torch.rand(1, 3, px, px + 16)
    features = ours.forward_features(image_BCHW)
    _, maps = reference.forward_intermediates(image_BCHW)
    for one, map_BCHW in zip(features.maps, maps, strict=True):
        assert relative_error(one.map_BCHW, map_BCHW) < 1e-5
    assert relative_error(ours.embed(features), reference(image_BCHW)) < 1e-5


@pytest.mark.reference
@pytest.mark.parametrize("name", ["vit_base_mci_224", "vit_large_patch14_clip_224"])
@torch.no_grad()
def test_patch_map_equals_timm(name, image_from_timm, scramble, relative_error) -> None:
    timm = pytest.importorskip("timm")
    row = VARIANTS["mobileclip2_b" if "mci" in name else "mobileclip2_l_14"].model.image
    config = dataclasses.replace(row, image_px=row.patch_px * 5, layers=2)
    reference = timm.create_model(name, num_classes=8, depth=2, img_size=config.image_px)
    ours = ViT(config, embed_dim=8).eval()
    ours.load_state_dict(image_from_timm(scramble(reference).state_dict()), strict=True)
    image_BCHW = torch.rand(2, 3, config.image_px, config.image_px)
    features = ours.forward_features(image_BCHW)
    _, ((map_BCHW, prefix_BLC),) = reference.forward_intermediates(
        image_BCHW, indices=1, return_prefix_tokens=True
    )
    assert relative_error(features.maps[0].map_BCHW, map_BCHW) < 1e-5
    assert relative_error(features.class_BC, prefix_BLC[:, 0]) < 1e-5


def test_gradients_reach_everything_below_a_map(narrow, batch) -> None:
    tower = Clip(narrow.model).image
    image_BCHW, _ = batch(narrow, 2)
    features = tower.forward_features(image_BCHW)
    features.maps[0].map_BCHW.square().sum().backward()
    first = tower.stages[0] if isinstance(tower, FastViT) else tower.blocks
    for part in (tower.stem, first):
        assert all(parameter.grad is not None for parameter in part.parameters())
    assert tower.head.weight.grad is None


def test_a_vit_without_class_token_has_none() -> None:
    config = ViTConfig(image_px=32, patch_px=16, width=16, heads=2, layers=1, pool="avg")
    assert ViT(config, embed_dim=4).forward_features(torch.zeros(1, 3, 32, 32)).class_BC is None
