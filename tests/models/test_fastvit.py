from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from pocketclip.models import VARIANTS, FastViTConfig
from pocketclip.models.convolution import Branches
from pocketclip.models.fastvit import FastViT

MCI0 = VARIANTS["mobileclip2_s0"].model.image
# One variant for each image tower of this kind: its name with timm.
FAMILY = {
    "mobileclip2_s0": "fastvit_mci0",
    "mobileclip_s1": "fastvit_mci1",
    "mobileclip2_s2": "fastvit_mci2",
    "mobileclip2_s3": "fastvit_mci3",
    "mobileclip2_s4": "fastvit_mci4",
    "mci2_scaled": "fastvit_mci2",  # with other widths
}


def test_family_has_every_published_tower_of_this_kind() -> None:
    towers = {row.model.image for name, row in VARIANTS.items() if not name.startswith("pocketclip")}
    fastvits = {image for image in towers if isinstance(image, FastViTConfig)}
    assert fastvits == {VARIANTS[name].model.image for name in FAMILY}


@pytest.mark.reference
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_mci0_equals_timm(training, image_from_timm, scramble, relative_error) -> None:
    timm = pytest.importorskip("timm")
    reference = scramble(timm.create_model("fastvit_mci0", num_classes=512))
    ours = FastViT(MCI0, embed_dim=512)
    ours.load_state_dict(image_from_timm(reference.state_dict()), strict=True)
    image_BCHW = torch.rand(4 if training else 2, 3, 256, 256)
    reference.train(training)
    ours.train(training)
    assert relative_error(ours(image_BCHW), reference(image_BCHW)) < 1e-5
    if training:  # running statistics moved alike
        moved = image_from_timm(reference.state_dict())
        for key, value in ours.state_dict().items():
            torch.testing.assert_close(value, moved[key], rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.reference
@pytest.mark.parametrize("name", FAMILY)
@torch.no_grad()
def test_family_equals_timm_at_one_block_a_stage(name, image_from_timm, scramble, relative_error) -> None:
    timm = pytest.importorskip("timm")
    model = VARIANTS[name].model
    config = dataclasses.replace(model.image, depths=(1,) * len(model.image.depths))
    reference = timm.create_model(
        FAMILY[name], num_classes=model.embed_dim, layers=config.depths, embed_dims=config.widths
    )
    with torch.device("meta"):
        ours = FastViT(config, embed_dim=model.embed_dim).eval()
    ours.load_state_dict(image_from_timm(scramble(reference).state_dict()), strict=True, assign=True)
    image_BCHW = torch.rand(1, 3, 128, 160)  # any size, any aspect
    assert relative_error(ours(image_BCHW), reference(image_BCHW)) < 1e-5


def test_every_parameter_learns() -> None:
    tower = FastViT(VARIANTS["pocketclip_tiny"].model.image, embed_dim=16)
    tower(torch.randn(4, 3, 64, 64)).square().sum().backward()
    still = [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_tiny_has_every_kind_of_block_of_the_real_family() -> None:
    real = {type(module) for module in FastViT(MCI0, embed_dim=8).modules()}
    for name in ("pocketclip_tiny", "pocketclip_tiny_teacher"):
        assert {type(module) for module in FastViT(VARIANTS[name].model.image, embed_dim=8).modules()} == real


@torch.no_grad()
def test_memory_format_does_not_change_the_embedding(scramble, relative_error) -> None:
    tower = scramble(FastViT(VARIANTS["pocketclip_tiny"].model.image, embed_dim=16))
    image_BCHW = torch.randn(2, 3, 64, 64)
    channels_last = copy.deepcopy(tower).to(memory_format=torch.channels_last)
    out = channels_last(image_BCHW.to(memory_format=torch.channels_last))
    assert relative_error(out, tower(image_BCHW)) < 1e-5


@pytest.mark.parametrize("width", [8, 16, 32])
def test_gradients_do_not_depend_on_memory_format(width) -> None:
    """With a strided 1 x 1 convolution of 3 channels, oneDNN gives wrong gradients, hangs or crashes here."""
    torch.manual_seed(0)
    stem = Branches(3, width, kernels=(3, 1), stride=2).double()
    image_BCHW = torch.randn(16, 3, 64, 64, dtype=torch.float64)
    out_BCHW = stem(image_BCHW)
    weight_BCHW = torch.randn_like(out_BCHW)
    (out_BCHW * weight_BCHW).sum().backward()
    last = copy.deepcopy(stem).float().to(memory_format=torch.channels_last)
    last.zero_grad()
    pixels_BCHW = image_BCHW.float().to(memory_format=torch.channels_last)
    (last(pixels_BCHW) * weight_BCHW.float()).sum().backward()
    for (name, ours), reference in zip(last.named_parameters(), stem.parameters(), strict=True):
        error = (ours.grad.double() - reference.grad).abs().max() / reference.grad.abs().max()
        assert error < 1e-3, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (1, 1)}, "one entry a stage"),
        ({"widths": (32, 48, 96)}, "multiple of the one before"),
        ({"attention_stages": 4}, r"attention_stages is 4, not in 0\.\.3"),
        ({"widths": (8, 16, 16)}, "head_channels 32"),
        ({"norm": "group"}, "'batch' or 'layer'"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
    ],
)
def test_bad_configs_are_refused_with_the_field(change, message) -> None:
    good = {"widths": (32, 64, 128), "depths": (1, 1, 1)}
    with pytest.raises(ValueError, match=message):
        FastViTConfig(**{**good, **change})
