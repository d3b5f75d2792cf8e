"""Weights on a line: its ends are the two models, bit for bit, and what does not fit has nothing between."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.checkpoint import create, interpolate, load, save

torch.set_num_threads(1)


def model(seed, variant="pocketclip_tiny"):
    torch.manual_seed(seed)
    made = create(variant)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in made.model.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)
            elif name.endswith("num_batches_tracked"):
                value.fill_(seed)
    return made


@pytest.fixture(scope="module")
def pair():
    return model(1), model(2)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_are_the_models_themselves(pair, share):
    between = interpolate(*pair, share=share).model.state_dict()
    for name, value in pair[int(share)].model.state_dict().items():
        if value.is_floating_point():
            assert torch.equal(between[name], value), name
        else:
            assert between[name] == 2, name


@settings(max_examples=5)
@given(share=st.floats(0.0, 1.0))
def test_every_weight_is_on_the_line(pair, share):
    between = interpolate(*pair, share=share).model.state_dict()
    before, after = (one.model.state_dict() for one in pair)
    for name, value in between.items():
        if value.is_floating_point():
            expected = (1 - share) * before[name].double() + share * after[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_models_stay_as_they_were_and_the_new_one_is_a_checkpoint(pair, tmp_path):
    kept = {name: value.clone() for name, value in pair[0].model.state_dict().items()}
    between = interpolate(*pair, share=0.5)
    assert not between.model.training
    with torch.no_grad():
        for parameter in between.model.parameters():
            parameter.zero_()
    assert all(torch.equal(value, kept[name]) for name, value in pair[0].model.state_dict().items())
    save(tmp_path / "a.safetensors", between.model, config=between.config, tokenizer=between.tokenizer)
    assert load(tmp_path / "a.safetensors").config == pair[1].config


def test_models_that_do_not_fit_have_nothing_between(pair):
    with pytest.raises(ValueError, match="nothing between these checkpoints"):
        interpolate(pair[0], model(3, "pocketclip_tiny_vit"), share=0.5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_outside_are_refused(pair, share):
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\]"):
        interpolate(*pair, share=share)
