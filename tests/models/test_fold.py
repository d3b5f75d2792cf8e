from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pocketclip.models import VARIANTS, Clip, fold
from pocketclip.models.convolution import (
    Branches,
    ConvBlock,
    ConvFFN,
    ConvNorm,
    PositionalConv,
    RepMixer,
    SqueezeExcite,
)
from pocketclip.models.fastvit import ChannelNorm, MapAttention
from pocketclip.models.fold import (
    add_kernels,
    conv_from,
    conv_kernel,
    identity_kernel,
    normed_kernel,
    pad_kernel,
    same_padding,
    scale_kernel,
)
from pocketclip.models.residual import Residual
from pocketclip.models.transformer import FeedForward, PreNorm, SelfAttention

BLOCKS = {
    "conv 3x3 + BN": lambda c: ConvNorm(c, 2 * c, kernel=3, stride=2),
    "strided 1x1 conv + BN": lambda c: ConvNorm(c, c, kernel=1, stride=2),
    "patchify conv + BN": lambda c: ConvNorm(c, c, kernel=2, stride=2),
    "stem, strided": lambda c: ConvBlock(Branches(c, 2 * c, kernels=(3, 1), stride=2)),
    "stem, depthwise": lambda c: ConvBlock(Branches(c, c, kernels=(3, 1), stride=2, groups=c)),
    "pointwise + identity": lambda c: ConvBlock(Branches(c, c, kernels=(1,))),
    "several branches": lambda c: Branches(c, c, kernels=(5, 5, 3, 1), groups=c // 2),
    "large kernel": lambda c: Branches(c, 2 * c, kernels=(7, 3), stride=2, groups=c, identity=False),
    "expand + squeeze": lambda c: ConvBlock(
        Branches(c, 2 * c, kernels=(3, 1), groups=c), squeeze=SqueezeExcite(2 * c, hidden=2)
    ),
    "wide kernels": lambda c: Branches(c, c, kernels=((3, 7), (1, 5), 1), groups=c),
    "RepMixer": lambda c: RepMixer(c, layer_scale_init=0.5),
    "RepMixer over tokens": lambda c: RepMixer(c, layer_scale_init=0.5, kernels=((1, 11),)),
    "ConvFFN": lambda c: Residual(ConvFFN(c, hidden=3 * c, init_std=0.3), channels=c, layer_scale_init=0.5),
    "ConvFFN over tokens": lambda c: ConvFFN(c, hidden=3 * c, init_std=0.3, kernel=(1, 11)),
    "attention, BatchNorm": lambda c: Residual(
        MapAttention(c, heads=2, norm="batch", init_std=0.3), channels=c, layer_scale_init=0.5
    ),
    "attention, LayerNorm": lambda c: Residual(
        MapAttention(c, heads=2, norm="layer", init_std=0.3), channels=c, layer_scale_init=0.5
    ),
    "positional conv": PositionalConv,
    "unscaled residual": lambda c: Residual(nn.Conv2d(c, c, 1), channels=c),
    "foreign branch": lambda c: Residual(nn.Conv2d(c, c, 1), channels=c, layer_scale_init=0.5),
}
ONE_CONVOLUTION = {
    "strided 1x1 conv + BN",
    "conv 3x3 + BN",
    "patchify conv + BN",
    "several branches",
    "large kernel",
    "wide kernels",
    "RepMixer",
    "RepMixer over tokens",
    "positional conv",
}


# What no folded model has; squeeze-and-excitation and LayerNorm depend on the input and stay.
TRAINED_ONLY = (nn.BatchNorm2d, Branches, ConvNorm, RepMixer, PositionalConv)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            low, high = (0.3, 2.0) if name.endswith("running_var") else (-1.0, 1.0)
            tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=rng))
    return module.eval()


@pytest.mark.parametrize("name", BLOCKS)
@settings(max_examples=8, deadline=None)
@given(
    half_channels=st.integers(1, 4),
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    seed=st.integers(0, 2**31),
)
@torch.no_grad()
def test_folded_block_computes_the_same(
    name: str, half_channels: int, height: int, width: int, seed: int
) -> None:
    block = randomise(BLOCKS[name](2 * half_channels), seed).double()
    image_BCHW = torch.randn(2, 2 * half_channels, height, width, dtype=torch.float64)
    folded = fold(block)
    torch.testing.assert_close(folded(image_BCHW), block(image_BCHW), rtol=1e-10, atol=1e-10)
    assert (type(folded) is nn.Conv2d) == (name in ONE_CONVOLUTION)
    assert not [m for m in folded.modules() if isinstance(m, TRAINED_ONLY)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_folded_block_computes_the_same_in_any_dtype_and_memory_format(name, dtype) -> None:
    block = randomise(BLOCKS[name](8), seed=1)
    image_BCHW = torch.randn(2, 8, 6, 7)
    expected = block(image_BCHW)
    tolerance = 40 * torch.finfo(dtype).eps * expected.abs().max().item()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        lowered = copy.deepcopy(block).to(dtype=dtype, memory_format=memory_format)
        folded = fold(lowered)
        given = image_BCHW.to(dtype=dtype, memory_format=memory_format)
        for form in (folded, fold(folded), lowered):
            found = form(given)
            assert found.dtype == dtype
            assert (found.float() - expected).abs().max() < tolerance
        for parameter in folded.parameters():
            assert parameter.dtype == dtype
            assert parameter.ndim < 4 or parameter.is_contiguous(memory_format=memory_format)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_layer_scale_over_tokens_folds_into_the_last_linear_layer(seed: int) -> None:
    for inner in (SelfAttention(6, heads=2), FeedForward(6, hidden=10)):
        branch = PreNorm(inner, width=6, eps=1e-5)
        block = randomise(Residual(branch, channels=6, layer_scale_init=0.5), seed).double()
        tokens_BLC = torch.randn(2, 5, 6, dtype=torch.float64)
        folded = fold(block)
        assert folded.scale is None
        torch.testing.assert_close(folded(tokens_BLC), block(tokens_BLC), rtol=1e-10, atol=1e-10)


@given(
    size=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5, 11])),
    per_group=st.integers(1, 3),
    groups=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_kernel_algebra_is_the_algebra_of_maps(
    size: tuple[int, int], per_group: int, groups: int, seed: int
) -> None:
    channels = per_group * groups
    conv = randomise(
        nn.Conv2d(channels, channels, size, padding=same_padding(size), groups=groups), seed
    ).double()
    norm = randomise(nn.BatchNorm2d(channels), seed + 1).double()
    x_BCHW = torch.randn(2, channels, 6, 5, dtype=torch.float64)
    scale_C = torch.randn(channels, dtype=torch.float64)
    like = conv.weight

    def apply(kernel):
        return conv_from(kernel, stride=1, groups=groups, like=like)(x_BCHW)

    kernel = conv_kernel(conv)
    identity = identity_kernel(channels, groups=groups, size=size, like=like)
    close = torch.testing.assert_close
    close(apply(kernel), conv(x_BCHW))
    close(apply(identity), x_BCHW)
    close(apply(pad_kernel(kernel, (size[0] + 4, size[1] + 2))), conv(x_BCHW))
    close(apply(scale_kernel(kernel, scale_C)), conv(x_BCHW) * scale_C[:, None, None])
    close(apply(normed_kernel(kernel, norm)), norm(conv(x_BCHW)))
    close(apply(add_kernels(kernel, identity)), conv(x_BCHW) + x_BCHW)


@torch.no_grad()
def test_folded_variant_computes_the_same(narrow, batch, scramble, relative_error) -> None:
    model = scramble(Clip(narrow.model))
    before = copy.deepcopy(model.state_dict())
    image_BCHW, tokens_BL = batch(narrow, 2)

    folded = fold(model)
    twice = fold(folded)

    assert relative_error(folded.encode_image(image_BCHW), model.encode_image(image_BCHW)) < 1e-5
    assert relative_error(folded.encode_text(tokens_BL), model.encode_text(tokens_BL)) < 1e-5
    assert_same_state(twice.state_dict(), folded.state_dict())
    assert_same_state(model.state_dict(), before)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not [m for m in folded.modules() if isinstance(m, TRAINED_ONLY)]
    assert not folded.training


@torch.no_grad()
def test_folds_where_the_weights_are(narrow) -> None:
    """On a device without numbers as well: nothing of it passes through the CPU."""
    with torch.device("meta"):
        absent = Clip(narrow.model).eval()
    folded = fold(absent)
    assert {tensor.device.type for tensor in folded.state_dict().values()} == {"meta"}
    shapes = {name: tensor.shape for name, tensor in fold(Clip(narrow.model).eval()).state_dict().items()}
    assert {name: tensor.shape for name, tensor in folded.state_dict().items()} == shapes


@torch.no_grad()
def test_folded_copy_shares_no_memory_with_the_model() -> None:
    model = Clip(VARIANTS["pocketclip_tiny"].model).eval()
    folded = fold(model)
    pointers = {parameter.data_ptr() for parameter in model.parameters()}
    assert not pointers & {parameter.data_ptr() for parameter in folded.parameters()}


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.05), (torch.float16, 0.01)]
)
@torch.no_grad()
def test_folds_in_any_dtype(dtype, tolerance, scramble, relative_error) -> None:
    tower = scramble(Clip(VARIANTS["pocketclip_tiny"].model).image).to(dtype)
    image_BCHW = torch.randn(2, 3, 64, 64, dtype=dtype)
    folded = fold(tower)
    assert {parameter.dtype for parameter in folded.parameters()} == {dtype}
    assert relative_error(folded(image_BCHW), tower(image_BCHW)) < tolerance


@pytest.mark.parametrize("part", ["image", "image.stages.0", "text.norm"])
def test_refuses_training_mode_anywhere(part: str) -> None:
    model = Clip(VARIANTS["pocketclip_tiny"].model).eval()
    model.get_submodule(part).train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        fold(model)


@torch.no_grad()
def test_layer_norm_and_squeeze_stay() -> None:
    block = nn.Sequential(
        MapAttention(4, heads=1, norm="layer", init_std=0.1), SqueezeExcite(4, hidden=2)
    ).eval()
    kinds = [type(module) for module in fold(block).modules()]
    assert ChannelNorm in kinds
    assert SqueezeExcite in kinds


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def assert_same_state(ours, reference) -> None:
    assert list(ours) == list(reference)
    for name, value in ours.items():
        assert torch.equal(value, reference[name]), name
