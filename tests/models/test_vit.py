from __future__ import annotations

import dataclasses

import pytest
import torch

from pocketclip.models import VARIANTS, ViTConfig
from pocketclip.models.clip import Clip
from pocketclip.models.vit import ViT

SMALL = {"image_px": 32, "patch_px": 16, "width": 48, "heads": 4, "layers": 2}
# One variant for each image tower of this kind: its name with timm.
FAMILY = {"mobileclip2_b": "vit_base_mci_224", "mobileclip2_l_14": "vit_large_patch14_clip_224"}


def test_family_has_every_published_tower_of_this_kind() -> None:
    towers = {row.model.image for name, row in VARIANTS.items() if not name.startswith("pocketclip")}
    vits = {image for image in towers if isinstance(image, ViTConfig)}
    assert vits == {VARIANTS[name].model.image for name in FAMILY}


@pytest.mark.reference
@pytest.mark.parametrize("name", FAMILY)
@torch.no_grad()
def test_equals_timm_at_two_blocks(name, image_from_timm, scramble, relative_error) -> None:
    timm = pytest.importorskip("timm")
    model = VARIANTS[name].model
    config = dataclasses.replace(model.image, layers=2, image_px=4 * model.image.patch_px)
    reference = timm.create_model(
        FAMILY[name], num_classes=model.embed_dim, depth=2, img_size=config.image_px
    )
    ours = ViT(config, embed_dim=model.embed_dim).eval()
    ours.load_state_dict(image_from_timm(scramble(reference).state_dict()), strict=True)
    image_BCHW = torch.rand(2, 3, config.image_px, config.image_px)
    assert relative_error(ours(image_BCHW), reference(image_BCHW)) < 1e-5


@pytest.mark.parametrize("stem", ["patch", "conv"])
@pytest.mark.parametrize("pool", ["cls", "avg"])
def test_every_parameter_learns(stem, pool) -> None:
    tower = ViT(ViTConfig(**SMALL, stem=stem, pool=pool), embed_dim=8)
    tower(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert not [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("pool", ["cls", "avg"])
@torch.no_grad()
def test_patches_know_where_they_are(pool) -> None:
    tower = ViT(ViTConfig(**SMALL, pool=pool), embed_dim=8).eval()
    image_BCHW = torch.randn(1, 3, 32, 32)
    swapped_BCHW = torch.cat([image_BCHW[..., 16:], image_BCHW[..., :16]], dim=-1)
    assert not torch.allclose(tower(image_BCHW), tower(swapped_BCHW), atol=1e-5)


def test_pictures_of_another_size_are_refused() -> None:
    tower = ViT(ViTConfig(**SMALL), embed_dim=8)
    with pytest.raises(ValueError, match="32 x 32 pixels, not 48 x 32"):
        tower(torch.zeros(1, 3, 48, 32))


@pytest.mark.parametrize("pool", ["cls", "avg"])
def test_any_size_is_a_tower_of_that_size(pool) -> None:
    tiny = VARIANTS["pocketclip_tiny_vit"].model
    clip = Clip(dataclasses.replace(tiny, image=ViTConfig(**SMALL, pool=pool)))
    tower = clip.image
    assert isinstance(tower, ViT)
    tower.any_size = True
    for side in (16, 32, 64):
        image_BCHW = torch.randn(2, 3, side, side)
        torch.testing.assert_close(tower(image_BCHW), clip.resized(image_px=side).image(image_BCHW))
    tower(image_BCHW).sum().backward()
    assert tower.position.grad.any()
    with pytest.raises(ValueError, match="not 24 x 24"):
        tower(torch.zeros(1, 3, 24, 24))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_px": 40}, "multiple of patch_px 16"),
        ({"heads": 5}, "multiple of heads 5"),
        ({"stem": "linear"}, "'patch' or 'conv'"),
        ({"pool": "max"}, "'cls' or 'avg'"),
        ({"stem": "conv", "patch_px": 4}, "needs 8, 16, 32"),
        ({"stem": "conv", "width": 50, "heads": 5}, "multiple of 4"),
        ({"drop_path": -0.1}, "drop_path is -0.1"),
    ],
)
def test_bad_configs_are_refused_with_the_field(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        ViTConfig(**{**SMALL, **change})
