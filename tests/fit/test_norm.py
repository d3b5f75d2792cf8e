"""A BatchNorm with exactly added statistics is a BatchNorm, and a sharper one than torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketclip.fit.norm import ExactBatchNorm, share_norms

torch.set_num_threads(1)
LAYOUTS = [torch.channels_last, torch.contiguous_format]


def pair(channels, dtype):
    """A BatchNorm of torch's own and ours, of the same weights and statistics."""
    torch.manual_seed(0)
    own = nn.BatchNorm2d(channels, momentum=0.3, dtype=dtype)
    nn.init.normal_(own.weight)
    nn.init.normal_(own.bias)
    other = nn.Sequential(nn.BatchNorm2d(channels, momentum=0.3, dtype=dtype))
    other[0].load_state_dict(own.state_dict())
    share_norms(other, device="cpu", together=False)
    assert type(other[0]) is ExactBatchNorm
    return own, other[0]


def maps(shape, *, layout, dtype, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 5
    return x.to(dtype).to(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (2, 6, 1, 1), (7, 2, 160, 160)])
def test_it_computes_what_a_batchnorm_does(shape, layout):
    own, ours = pair(shape[1], torch.float64)
    results = []
    for norm in (own, ours):
        x = maps(shape, layout=layout, dtype=torch.float64)
        for _ in range(2):  # the second time the running statistics have moved
            y = norm(x)
        y.square().sum().backward(torch.tensor(0.1, dtype=torch.float64))
        results.append((y, x.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(own.eval()(x), ours.eval()(x))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_places_cost_no_digits(layout):
    """torch's own is wrong by 1e-5 and more where the maps are channels-last."""
    shape = (32, 4, 64, 64)
    _, ours = pair(4, torch.float32)
    exact, _ = pair(4, torch.float64)
    exact.load_state_dict(ours.state_dict())
    x = maps(shape, layout=layout, dtype=torch.float32).detach()
    y, expected = ours(x), exact(x.double())
    assert (y - expected).abs().max() < 2e-6
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name).double(), getattr(exact, name), rtol=3e-7, atol=0)


def test_half_precision_maps_keep_statistics_in_float32():
    own, ours = pair(3, torch.float32)
    x = maps((4, 3, 5, 5), layout=torch.channels_last, dtype=torch.bfloat16)
    y = ours(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, own(x), rtol=2e-2, atol=2e-2)
    y.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    torch.testing.assert_close(ours.running_mean, own.running_mean, rtol=1e-4, atol=0)


@pytest.mark.parametrize("together", [False, True])
def test_its_gradient_is_the_numerical_one(together, monkeypatch):
    _, ours = pair(2, torch.float64)
    ours.together = together
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: None)  # alone among all
    x = maps((3, 2, 2, 2), layout=torch.contiguous_format, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, w, b: _functional(ours, x, w, b), (x, ours.weight, ours.bias))


def _functional(norm, x, weight, bias):
    return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))
