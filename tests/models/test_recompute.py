"""Activations computed twice instead of kept: less memory, and not one number that differs."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from pocketclip.models import Clip, Variant, fold
from pocketclip.models.recompute import run


def dropping(row: Variant) -> Variant:
    """The same with stochastic depth in its image tower."""
    image = dataclasses.replace(row.model.image, drop_path=0.5)
    return dataclasses.replace(row, model=dataclasses.replace(row.model, image=image))


def trained(
    model: Clip, inputs: tuple[Tensor, Tensor]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Output, gradients and buffers after two training steps without an optimiser."""
    torch.manual_seed(7)
    for _ in range(2):
        out = model(*inputs)
        ((out.image_embed_BD * out.text_embed_BD.roll(1, 0)).sum() * out.logit_scale).backward()
    return (
        out.image_embed_BD.detach(),
        {name: parameter.grad for name, parameter in model.named_parameters()},
        dict(model.named_buffers()),
    )


def test_output_gradients_and_statistics_are_those_of_a_plain_pass(narrow, batch) -> None:
    row = dropping(narrow)
    plain = Clip(row.model).train()
    recomputed = copy.deepcopy(plain)
    recomputed.set_gradient_checkpointing(True)
    inputs = batch(row, 4)
    for ours, theirs in zip(trained(recomputed, inputs), trained(plain, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_statistics_stay_when_a_graph_is_walked_twice() -> None:
    plain = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.GELU())
    recomputed = copy.deepcopy(plain)
    x_BCHW = torch.randn(4, 2, 3, 3)
    run(plain, x_BCHW, recompute=False)
    loss = run(recomputed, x_BCHW, recompute=True).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    for ours, theirs in zip(recomputed.buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_statistics_are_in_place_again_after_a_failing_backward_pass() -> None:
    class Fragile(nn.BatchNorm1d):
        fails = False

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            if self.fails:
                raise RuntimeError("broken")
            return super().forward(input)

    norm = Fragile(3)
    statistics = list(norm.buffers())
    loss = run(norm, torch.randn(4, 3), recompute=True).sum()
    norm.fails = True
    with pytest.raises(RuntimeError, match="broken"):
        loss.backward()
    assert [id(one) for one in norm.buffers()] == [id(one) for one in statistics]


def test_blocks_keep_their_input_alone(narrow, batch) -> None:
    def kept(model: Clip, inputs: tuple[Tensor, Tensor]) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(*inputs)
        assert out.image_embed_BD.requires_grad
        own = {parameter.data_ptr() for parameter in model.parameters()}
        return sum(size for pointer, size in sizes.items() if pointer not in own)

    model = Clip(narrow.model).train()
    inputs = batch(narrow, 4)
    plain = kept(model, inputs)
    model.set_gradient_checkpointing(True)
    recomputed = kept(model, inputs)
    model.set_gradient_checkpointing(False)
    assert recomputed < plain / 3
    assert kept(model, inputs) == plain


def test_neither_folded_models_nor_passes_without_gradients_recompute(narrow, batch, monkeypatch) -> None:
    def never(*_: object, **__: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr("pocketclip.models.recompute.checkpoint", never)
    model = Clip(narrow.model).eval()
    model.set_gradient_checkpointing(True)
    image_BCHW, tokens_BL = batch(narrow, 2)
    with torch.no_grad():
        model(image_BCHW, tokens_BL)
    folded = fold(model)
    folded(image_BCHW.requires_grad_(True), tokens_BL)
    with pytest.raises(AssertionError):
        model(image_BCHW, tokens_BL)
