from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pocketclip.models.residual import Residual, drop_path_rates, stochastic_depth


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(0.05, 0.9))
def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(4096, 2, 3)
    out = stochastic_depth(x, rate=rate, training=True)
    per_sample = out.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    kept = per_sample[:, 0] != 0
    torch.testing.assert_close(out[kept], x[kept] / (1 - rate))
    assert abs(kept.float().mean().item() - (1 - rate)) < 0.05


def test_stochastic_depth_is_off_in_eval_mode() -> None:
    block = Residual(nn.Identity(), channels=2, drop_path=0.9).eval()
    x = torch.randn(8, 2, 3, 3)
    assert torch.equal(block(x), 2 * x)


def test_scale_multiplies_channels_of_maps_and_of_tokens() -> None:
    block = Residual(nn.Identity(), channels=3, layer_scale_init=0.0)
    with torch.no_grad():
        block.scale.copy_(torch.tensor([1.0, 2.0, 3.0]))
    ones = torch.ones(1, 3, 2, 2)
    assert block(ones)[0, :, 0, 0].tolist() == [2.0, 3.0, 4.0]
    assert block(ones.flatten(2).transpose(1, 2))[0, 0].tolist() == [2.0, 3.0, 4.0]


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(0.0, 0.5), depth=st.integers(1, 30))
def test_rates_rise_from_zero_to_the_last(rate: float, depth: int) -> None:
    rates = drop_path_rates(rate, depth)
    assert len(rates) == depth
    assert rates[0] == 0.0
    assert rates == sorted(rates)
    assert depth == 1 or abs(rates[-1] - rate) < 1e-9
