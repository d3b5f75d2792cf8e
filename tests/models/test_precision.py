"""Half precision and memory formats change how a variant is computed, not what it says."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor

from pocketclip.models import Clip, ViTConfig, fold

Inputs = tuple[Tensor, Tensor]
# Largest Euclidean distance from an embedding of length 1 in float32.
NEAR = {torch.bfloat16: 0.1, torch.float16: 0.02}


def embeddings(model: Clip, inputs: Inputs) -> Inputs:
    out = model(*inputs)
    return out.image_embed_BD, out.text_embed_BD


def distance(ours: Inputs, reference: Inputs) -> float:
    return max((one - other).norm(dim=-1).max().item() for one, other in zip(ours, reference, strict=True))


@torch.no_grad()
def make_loud(model: Clip, inputs: Inputs, *, norm: float = 1e6) -> None:
    """Make un-normalised embeddings as long as those of the published S0, which float16 cannot hold."""
    last_norms = [model.text.norm]  # weights of the last map alone would be too large for float16 themselves
    if isinstance(model.config.image, ViTConfig):
        last_norms.append(model.image.norm)
    else:
        last_norms += [conv.norm for conv in model.image.expand.conv.convs]
    for parameter in itertools.chain.from_iterable(one.parameters() for one in last_norms):
        parameter.mul_(100)
    for tower, x in zip((model.image, model.text), inputs, strict=True):
        factor = norm / tower(x).norm(dim=-1).mean()
        for parameter in tower.head.parameters():
            parameter.mul_(factor)
        assert tower(x).abs().max() > torch.finfo(torch.float16).max


@pytest.fixture
def loud(narrow, batch, scramble) -> tuple[Clip, Inputs]:
    """Every variant's narrow twin with embeddings of norms near 1e6 before they are normalised, and inputs."""
    inputs = batch(narrow, 3)
    model = scramble(Clip(narrow.model))
    make_loud(model, inputs)
    return model, inputs


@pytest.mark.parametrize("dtype", NEAR)
@torch.no_grad()
def test_autocast_keeps_loud_embeddings(loud, dtype) -> None:
    model, inputs = loud
    expected = embeddings(model, inputs)
    for form in (model, fold(model)):
        with torch.autocast("cpu", dtype=dtype):
            found = embeddings(form, inputs)
            raw_BD = form.encode_image(inputs[0]), form.encode_text(inputs[1])
        assert {one.dtype for one in (*found, *raw_BD)} == {torch.float32}
        assert all(one.isfinite().all() for one in raw_BD)
        assert distance(found, expected) < NEAR[dtype]


@pytest.mark.parametrize("dtype", NEAR)
@torch.no_grad()
def test_half_models_keep_loud_embeddings(loud, dtype) -> None:
    model, (image_BCHW, tokens_BL) = loud
    expected = embeddings(model, (image_BCHW, tokens_BL))
    for form in (model, fold(model)):
        half = copy.deepcopy(form).to(dtype)
        found = embeddings(half, (image_BCHW.to(dtype), tokens_BL))
        raw_BD = half.encode_image(image_BCHW.to(dtype)), half.encode_text(tokens_BL)
        assert {one.dtype for one in (*found, *raw_BD)} == {torch.float32}
        assert all(one.isfinite().all() for one in raw_BD)
        assert distance(found, expected) < NEAR[dtype]


def test_training_under_autocast_gives_near_gradients(narrow, batch) -> None:
    plain = Clip(narrow.model).train()
    halved = copy.deepcopy(plain)
    inputs = batch(narrow, 4)
    gradients = []
    for model, enabled in ((plain, False), (halved, True)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            image_BD, text_BD = embeddings(model, inputs)
        (image_BD * text_BD.roll(1, 0)).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[1].isfinite().all()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98


@pytest.mark.parametrize("training", [False, True])
def test_channels_last_computes_the_same(narrow, batch, scramble, training, relative_error) -> None:
    plain = scramble(Clip(narrow.model)).train(training)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    image_BCHW, tokens_BL = batch(narrow, 4)
    inputs_last = image_BCHW.to(memory_format=torch.channels_last), tokens_BL
    for ours, theirs in zip(
        embeddings(last, inputs_last), embeddings(plain, (image_BCHW, tokens_BL)), strict=True
    ):
        assert relative_error(ours, theirs) < 1e-4
    if not training:
        folded = fold(last)
        assert all(
            p.is_contiguous(memory_format=torch.channels_last) for p in folded.parameters() if p.ndim == 4
        )
        assert distance(embeddings(folded, inputs_last), embeddings(plain, (image_BCHW, tokens_BL))) < 1e-4
