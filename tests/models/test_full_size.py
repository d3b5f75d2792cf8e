"""Every variant at full size: folding changes nothing, however deep the tower."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from pocketclip.models import VARIANTS, ClipConfig, FastViTConfig, HybridTextConfig, fold
from pocketclip.models.convolution import Branches, ConvNorm, PositionalConv, RepMixer
from pocketclip.models.fastvit import FastViT
from pocketclip.models.hybrid_text import HybridText
from pocketclip.models.text import TextTransformer
from pocketclip.models.vit import ViT

pytestmark = pytest.mark.slow


def by_tower(part: str) -> Mapping[str, ClipConfig]:
    """One variant for each tower; those of one tower share a test."""
    rows = {getattr(row.model, part): row for row in reversed(VARIANTS.values())}
    return {row.name: row.model for row in rows.values()}


TRAINED_ONLY = (nn.BatchNorm2d, Branches, ConvNorm, RepMixer, PositionalConv)
IMAGES, TEXTS = by_tower("image"), by_tower("text")


def filled(tower: nn.Module, *, seed: int = 0) -> nn.Module:
    """A tower from the meta device with random weights and statistics, in eval mode; quicker than its own start."""
    rng = torch.Generator().manual_seed(seed)
    tower.to_empty(device="cpu")
    for name, tensor in tower.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.zero_()
        elif tensor.ndim >= 2:
            fan_in = tensor[0].numel()
            tensor.normal_(std=fan_in**-0.5, generator=rng)
        elif name.endswith(("norm.weight", "identity.weight", "running_var")):
            tensor.uniform_(0.5, 1.5, generator=rng)
        else:  # biases, means, layer scales
            tensor.uniform_(-0.3, 0.3, generator=rng)
    return tower.eval()


@torch.no_grad()
def check(tower: nn.Module, x: Tensor, relative_error) -> None:
    tower = filled(tower)
    expected_BD = tower(x)
    folded = fold(tower)
    del tower  # the largest have 1.3 GB
    found_BD = folded(x)
    assert relative_error(found_BD, expected_BD) < 1e-5
    assert relative_error(expected_BD[:1], expected_BD[1:]) > 1e-3  # the two inputs are told apart
    assert not [module for module in folded.modules() if isinstance(module, TRAINED_ONLY)]


@pytest.mark.parametrize("name", IMAGES)
def test_folded_image_tower_computes_the_same(name, relative_error) -> None:
    model = IMAGES[name]
    with torch.device("meta"):
        if isinstance(model.image, FastViTConfig):
            tower, px = FastViT(model.image, embed_dim=model.embed_dim), 64
        else:
            tower, px = ViT(model.image, embed_dim=model.embed_dim), model.image.image_px
    check(tower, torch.rand(2, 3, px, px), relative_error)


@pytest.mark.parametrize("name", TEXTS)
def test_folded_text_tower_computes_the_same(name, relative_error) -> None:
    model = TEXTS[name]
    with torch.device("meta"):
        kind = HybridText if isinstance(model.text, HybridTextConfig) else TextTransformer
        tower = kind(model.text, embed_dim=model.embed_dim)
    tokens_BL = torch.randint(1, model.text.vocab_size - 2, (2, model.text.context_length))
    tokens_BL[:, -1] = model.text.vocab_size - 1
    check(tower, tokens_BL, relative_error)
