"""Feed-forward networks are replaceable, by a mixture of experts say, without a word changed in the towers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pocketclip.models import Clip, fold
from pocketclip.models.convolution import ConvFFN
from pocketclip.models.residual import Residual
from pocketclip.models.transformer import FeedForward, PreNorm


class Experts(nn.Module):
    """Copies of a feed-forward network, mixed for each picture or text by a router (CLIP-UP, arXiv 2502.00965)."""

    def __init__(self, ffn: nn.Module, *, channels: int, num_experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(channels, num_experts)
        self.experts = nn.ModuleList(copy.deepcopy(ffn) for _ in range(num_experts))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [B, L, C], the same out."""
        mean_BC = x.mean((2, 3)) if x.ndim == 4 else x.mean(1)
        gate_BE = self.router(mean_BC).softmax(-1)
        out = torch.stack([expert(x) for expert in self.experts], dim=1)
        return torch.einsum("be,be...->b...", gate_BE, out)


class ScalableExperts(Experts):
    """The same, taking a layer scale into its experts when it is folded."""

    def scale_output(self, scale_C: Tensor) -> None:
        """Multiply the output channels with scale_C."""
        for expert in self.experts:
            expert.scale_output(scale_C)


def channels_of(ffn: nn.Module) -> int:
    layer = next(module for module in ffn.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return layer.weight.shape[1] * (layer.groups if isinstance(layer, nn.Conv2d) else 1)


def upcycle(model: Clip, kind: type[Experts]) -> int:
    """Replaces every feed-forward network, in place; returns how many."""
    residuals = [
        module
        for name, module in model.named_modules()
        if name.endswith("ffn") and isinstance(module, Residual)
    ]
    for residual in residuals:
        assert isinstance(residual.branch, ConvFFN | PreNorm)
        experts = kind(residual.branch, channels=channels_of(residual.branch), num_experts=3)
        residual.branch = experts.train(residual.training)
    return len(residuals)


def embeddings(model: Clip, inputs: tuple[Tensor, Tensor]) -> Tensor:
    return torch.stack([model.encode_image(inputs[0]), model.encode_text(inputs[1])])


@pytest.mark.parametrize("kind", [Experts, ScalableExperts])
@torch.no_grad()
def test_every_ffn_becomes_a_mixture_of_experts(narrow, batch, scramble, relative_error, kind) -> None:
    model = scramble(Clip(narrow.model))
    inputs = batch(narrow, 2)
    before = embeddings(model, inputs)
    num_ffns = sum(isinstance(module, ConvFFN | FeedForward) for module in model.modules())
    assert upcycle(model, kind) == num_ffns

    assert relative_error(embeddings(model, inputs), before) < 1e-5  # copies of one network are that network
    for module in model.modules():
        if isinstance(module, Experts):
            for parameter in module.experts.parameters():
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
    mixed = embeddings(model, inputs)
    assert relative_error(mixed, before) > 1e-3

    folded = fold(model)
    assert relative_error(embeddings(folded, inputs), mixed) < 1e-5
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(isinstance(module, Experts) for module in folded.modules()) == num_ffns

    other = Clip(narrow.model).eval()
    upcycle(other, kind)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(embeddings(other, inputs), mixed)


def test_experts_train_with_recomputation(narrow, batch) -> None:
    plain = Clip(narrow.model).train()
    upcycle(plain, Experts)
    recomputed = copy.deepcopy(plain)
    recomputed.set_gradient_checkpointing(True)
    inputs = batch(narrow, 4)
    for model in (plain, recomputed):
        image_BD, text_BD, scale = model(*inputs)
        (scale * image_BD * text_BD.roll(1, 0)).sum().backward()
    for (name, ours), theirs in zip(recomputed.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None, name
        assert torch.equal(ours.grad, theirs.grad), name


@torch.no_grad()
def test_the_network_inside_a_pre_norm_is_replaceable_too(narrow, batch, scramble, relative_error) -> None:
    """A router that looks at normalised tokens, as in a sparse transformer."""
    model = scramble(Clip(narrow.model))
    inputs = batch(narrow, 2)
    before = embeddings(model, inputs)
    for module in list(model.modules()):
        if isinstance(module, PreNorm) and isinstance(module.inner, FeedForward):
            module.inner = Experts(module.inner, channels=channels_of(module.inner), num_experts=2).eval()
    for form in (model, fold(model)):
        assert relative_error(embeddings(form, inputs), before) < 1e-5
