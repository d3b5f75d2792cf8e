"""Matrices decay and vectors do not; the average follows its formula; a restored state steps as the saved one would."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pocketclip.checkpoint import create
from pocketclip.fit import OptimConfig, WeightAverage, make_adamw
from pocketclip.fit.optim import optimizer_state, restore_optimizer

torch.set_num_threads(1)


def test_every_parameter_is_in_one_group_and_only_matrices_decay():
    model = create("pocketclip_tiny").model
    model.text.position.requires_grad_(False)
    optimizer = make_adamw(model, config=OptimConfig(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, kept = (
        [
            names[id(p)]
            for group in optimizer.param_groups
            if group["weight_decay"] == decay
            for p in group["params"]
        ]
        for decay in (0.3, 0.0)
    )
    assert len(decayed) + len(kept) == len({*decayed, *kept}) == len(names) - 1
    assert "text.position" not in {*decayed, *kept}
    parameters = dict(model.named_parameters())
    assert all(parameters[name].ndim >= 2 for name in decayed)
    assert all(parameters[name].ndim < 2 for name in kept)
    assert "logit_scale" in kept
    assert all(name in kept for name in names.values() if name.endswith(".bias") or "norm" in name)


def test_without_a_gradient_matrices_shrink_by_rate_times_decay_and_vectors_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = copy.deepcopy(model.state_dict())
    optimizer = make_adamw(model, config=OptimConfig(lr_peak=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), before["0.weight"] * (1 - 0.1 * 0.5))
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(model.state_dict()[name], before[name])


@settings(deadline=None)
@given(st.floats(0.0, 0.999), st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_the_average_follows_its_formula(decay, values):
    model = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=decay)
    expected = {"weight": 1.0, "running_var": 1.0}
    for count, value in enumerate(values, start=1):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_var.fill_(-value)
            model.num_batches_tracked.fill_(count)
        average.update(model)
        expected["weight"] = decay * expected["weight"] + (1 - decay) * value
        expected["running_var"] = decay * expected["running_var"] - (1 - decay) * value
    for name, value in expected.items():
        assert average.tensors[name].item() == pytest.approx(value, rel=1e-5, abs=1e-5)
    assert average.tensors["num_batches_tracked"].item() == len(values)
    assert model.weight.item() == pytest.approx(values[-1])


def convolution(seed):
    torch.manual_seed(seed)
    return nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)


def steps(model, optimizer, *, first, num):
    for step in range(first, first + num):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(2, 4, 5, 5)).square().mean().backward()
        optimizer.step()


def as_from_disk(tree):
    """A copy whose tensors are contiguous, whatever layout they had."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(tree, dict):
        return {key: as_from_disk(value) for key, value in tree.items()}
    return [as_from_disk(value) for value in tree] if isinstance(tree, list) else tree


def test_a_restored_state_steps_as_the_saved_one_whatever_layout_it_was_kept_in():
    model = convolution(0)
    optimizer = make_adamw(model, config=OptimConfig())
    steps(model, optimizer, first=0, num=3)
    weights, saved = as_from_disk(model.state_dict()), as_from_disk(optimizer_state(optimizer, model))
    steps(model, optimizer, first=3, num=3)

    again = convolution(1)
    again.load_state_dict(weights)
    restored = make_adamw(again, config=OptimConfig())
    restore_optimizer(restored, again, saved)
    kept = copy.deepcopy(saved)
    steps(again, restored, first=3, num=3)
    assert torch.equal(again.weight, model.weight)
    assert torch.equal(again.bias, model.bias)
    for name, value in kept["weight"].items():
        assert torch.equal(saved["weight"][name], value)  # what was restored from is left alone


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_an_average_that_never_moves_or_runs_off_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        WeightAverage(nn.Linear(1, 1), decay=decay)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr_floor": 1.0}, "lr_floor"),
        ({"lr_peak": -1.0}, "lr_floor"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"clip_norm": 0.0}, "clip_norm"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**fields)
