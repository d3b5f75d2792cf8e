"""Structural reparameterisation: parallel linear branches become one convolution.

A convolution, a BatchNorm with fixed statistics, an identity and a scaling are all affine maps, and so is
their sum. Each is written here as a `Kernel` (weight, bias); kernels are padded to one size, scaled, added,
and leave as an ordinary `nn.Conv2d` or `nn.Linear`. Sums are in float64, so that folding costs no precision.
(MobileCLIP2, arXiv 2508.20691, section 3, from MobileOne, arXiv 2206.04040, and FastViT, arXiv 2303.14189.)

Shape suffixes: O output channels, I input channels of one group, H and W height and width of a kernel.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


Size = tuple[int, int]  # height and width of a kernel


class Kernel(NamedTuple):
    """A convolution as numbers: weight_OIHW float64 [O, I, H, W], bias_O float64 [O]."""

    weight_OIHW: Tensor
    bias_O: Tensor


@runtime_checkable
class Foldable(Protocol):
    """A module with a folded form."""

    def fold_in_place(self) -> nn.Module:
        """The module that replaces this one: a new one, or itself, changed. Children are folded afterwards.

        Called on `fold`'s private copy only, in eval mode; calling it on what it returned changes nothing.
        """
        ...


def fold(model: ModuleT) -> ModuleT:
    """A new model that computes the same with every train-time branch folded away.

    Branches, the BatchNorms after convolutions and before attention, and layer scales become part of one
    convolution or linear layer each. Not folded, because they depend on the input: squeeze-and-excitation and
    LayerNorm. The given model is untouched; folding twice is the same as once.

    Args:
        model: any module, in eval mode, of any floating dtype and on any device. Blocks with a folded form
            (`Foldable`) are replaced wherever they are, the model itself included; the rest is copied.

    Returns:
        The folded copy, in eval mode, on the same device and of the same dtype; none of its parameters
        requires a gradient. A type checker sees the type given, but a single block returns what it folds to.

    Raises:
        ValueError: the model, or a part of it, is in training mode.
    """
    if any(module.training for module in model.modules()):
        raise ValueError(
            "fold() needs a model in eval mode, because BatchNorm has fixed statistics only there: "
            "call model.eval() first, then fold(model)."
        )
    folded = _fold_tree(copy.deepcopy(model))
    folded.eval()
    folded.requires_grad_(False)
    return folded  # ty: ignore[invalid-explicit-return]


def _fold_tree(module: nn.Module) -> nn.Module:
    if isinstance(module, Foldable):
        module = module.fold_in_place()
    for name, child in module.named_children():
        setattr(module, name, _fold_tree(child))
    return module


def precise(tensor: Tensor) -> Tensor:
    """The detached tensor in float64, or in float32 on a device without float64."""
    return tensor.detach().to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def norm_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """BatchNorm with fixed statistics as y = scale * x + shift: (scale_C, shift_C), float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale_C = precise(norm.weight) / torch.sqrt(precise(norm.running_var) + norm.eps)
    return scale_C, precise(norm.bias) - precise(norm.running_mean) * scale_C


def conv_kernel(conv: nn.Conv2d) -> Kernel:
    """The kernel of a convolution; a missing bias is zero."""
    weight_OIHW = precise(conv.weight)
    bias_O = weight_OIHW.new_zeros(conv.out_channels) if conv.bias is None else precise(conv.bias)
    return Kernel(weight_OIHW, bias_O)


def identity_kernel(channels: int, *, groups: int, size: Size, like: Tensor) -> Kernel:
    """The kernel of size `size` (odd sides) that returns its input, on the device of `like`, float64."""
    height, width = size
    assert height % 2 == 1
    assert width % 2 == 1
    assert channels % groups == 0
    per_group = channels // groups
    weight_OIHW = precise(like).new_zeros(channels, per_group, height, width)
    out = torch.arange(channels, device=like.device)
    weight_OIHW[out, out % per_group, height // 2, width // 2] = 1.0
    return Kernel(weight_OIHW, weight_OIHW.new_zeros(channels))


def pad_kernel(kernel: Kernel, size: Size) -> Kernel:
    """The same map as a kernel of the larger size `size` (odd sides), zeros around it."""
    margins: list[int] = []
    for wanted, side in zip(reversed(size), reversed(kernel.weight_OIHW.shape[2:]), strict=True):
        margin, odd = divmod(wanted - side, 2)
        assert margin >= 0
        assert not odd
        margins += [margin, margin]
    return Kernel(F.pad(kernel.weight_OIHW, margins), kernel.bias_O)


def scale_kernel(kernel: Kernel, scale_O: Tensor) -> Kernel:
    """The map followed by a multiplication of each output channel with scale_O [O]."""
    return Kernel(kernel.weight_OIHW * scale_O[:, None, None, None], kernel.bias_O * scale_O)


def normed_kernel(kernel: Kernel, norm: nn.BatchNorm2d) -> Kernel:
    """The map followed by a BatchNorm with fixed statistics."""
    scale_O, shift_O = norm_affine(norm)
    scaled = scale_kernel(kernel, scale_O)
    return Kernel(scaled.weight_OIHW, scaled.bias_O + shift_O)


def add_kernels(*kernels: Kernel) -> Kernel:
    """The sum of maps whose kernels have one shape."""
    weights, biases = zip(*kernels, strict=True)
    return Kernel(torch.stack(weights).sum(0), torch.stack(biases).sum(0))


def conv_from(kernel: Kernel, *, stride: int, groups: int, like: Tensor) -> nn.Conv2d:
    """An ordinary `nn.Conv2d` with this kernel and 'same' zero padding; dtype, device, memory format of `like`.

    An even side (patchify convolutions) gets no padding.
    """
    out_channels, per_group, height, width = kernel.weight_OIHW.shape
    size = (height, width)
    conv = nn.Conv2d(
        per_group * groups,
        out_channels,
        size,
        stride=stride,
        padding=same_padding(size),
        groups=groups,
        bias=True,
        device=like.device,
        dtype=like.dtype,
    )
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(kernel.weight_OIHW)
        conv.bias.copy_(kernel.bias_O)
    if like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        conv.to(memory_format=torch.channels_last)
    return conv.eval()


def same_padding(size: Size) -> Size:
    """Zeros on each side of a map that keep its size; none where the kernel's side is even (patchify)."""
    height, width = size
    return height // 2 if height % 2 else 0, width // 2 if width % 2 else 0


def linear_from(weight_OI: Tensor, bias_O: Tensor, *, like: Tensor) -> nn.Linear:
    """An ordinary `nn.Linear` with these numbers, dtype and device of `like`."""
    out_features, in_features = weight_OI.shape
    linear = nn.Linear(in_features, out_features, bias=True, device=like.device, dtype=like.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight_OI)
        linear.bias.copy_(bias_O)
    return linear.eval()
