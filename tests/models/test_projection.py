from __future__ import annotations

import pytest
import torch

from pocketclip.models import VARIANTS, Clip
from pocketclip.models.projection import Projection, unit_norm


@torch.no_grad()
def test_half_features_too_long_for_float16_keep_their_direction() -> None:
    projection = Projection(64, 32)
    projection.weight.mul_(1e4)
    features_BC = 100 * torch.randn(4, 64)
    expected_BD = unit_norm(projection(features_BC))
    embed_BD = projection.half()(features_BC.half())
    assert embed_BD.dtype == torch.float32
    assert embed_BD.norm(dim=-1).min() > torch.finfo(torch.float16).max
    torch.testing.assert_close(unit_norm(embed_BD), expected_BD, rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["autocast", "half model"])
@torch.no_grad()
def test_embeddings_are_unit_float32_in_reduced_precision(dtype, mode) -> None:
    row = VARIANTS["pocketclip_tiny"]
    model = Clip(row.model).eval()
    model.image.head.weight.mul_(1e5)
    model.text.head.weight.mul_(1e5)
    image_BCHW = torch.randn(2, 3, 64, 64)
    tokens_BL = torch.tensor([[8190, 5, 8191, 0], [8190, 7, 9, 8191]])
    expected = model(image_BCHW, tokens_BL)
    if mode == "autocast":
        with torch.autocast("cpu", dtype=dtype):
            out = model(image_BCHW, tokens_BL)
    else:
        out = model.to(dtype)(image_BCHW.to(dtype), tokens_BL)
    for ours, reference in zip(out[:2], expected[:2], strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.norm(dim=-1), torch.ones(2))
        assert (ours * reference).sum(-1).min() > 0.99
    assert out.logit_scale.dtype == torch.float32


def test_a_zero_row_stays_zero() -> None:
    assert torch.equal(unit_norm(torch.zeros(1, 4)), torch.zeros(1, 4))
