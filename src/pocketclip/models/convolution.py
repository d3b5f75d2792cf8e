"""Convolutional blocks that fold: branches while training, one convolution afterwards.

MobileOne (arXiv 2206.04040), FastViT (arXiv 2303.14189), RepLKNet (arXiv 2203.06717). Image towers use them with
square kernels over maps [B, C, H, W], the hybrid text tower with kernels 1 x K over tokens as maps [B, C, 1, L].

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pocketclip.models.fold import (
    Kernel,
    Size,
    add_kernels,
    conv_from,
    conv_kernel,
    identity_kernel,
    normed_kernel,
    pad_kernel,
    precise,
    same_padding,
    scale_kernel,
)
from pocketclip.models.transformer import scale_linear

LARGE_KERNEL = 7


class ConvNorm(nn.Module):
    """A convolution without bias, then BatchNorm: [B, C, H, W] -> [B, C', H', W'].

    A strided 1 x 1 convolution is computed as a stride-1 one on every stride-th place: the same numbers, and oneDNN's
    own strided form writes out of bounds in the backward pass of channels-last maps of few channels, such as the
    stem's (oneDNN issue 6035: wrong gradients, hangs, crashes).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int | Size, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        size = _size(kernel)
        self.stride = stride
        self.step = stride if size == (1, 1) else 1
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            size,
            stride=stride // self.step,
            padding=same_padding(size),
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        if self.step > 1:
            x_BCHW = F.avg_pool2d(x_BCHW, 1, self.step)  # every step-th place; a slice's gradient is slower
        return self.norm(self.conv(x_BCHW))

    def kernel(self) -> Kernel:
        """Convolution and BatchNorm as one kernel."""
        return normed_kernel(conv_kernel(self.conv), self.norm)

    def fold_in_place(self) -> nn.Conv2d:
        """One convolution with bias."""
        conv = self.conv
        return conv_from(self.kernel(), stride=self.stride, groups=conv.groups, like=conv.weight)


class Branches(nn.Module):
    """Parallel convolutions of several sizes, each with its BatchNorm, and an identity BatchNorm, added up.

    With kernels (3, 1) this is MobileOne's over-parameterised convolution, with (7, 3) RepLKNet's
    large-kernel convolution. The identity branch exists where shapes allow and `identity` asks for it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernels: tuple[int | Size, ...],
        stride: int = 1,
        groups: int = 1,
        identity: bool = True,
    ) -> None:
        super().__init__()
        self.size = _size(kernels[0])
        self.stride = stride
        self.groups = groups
        self.convs = nn.ModuleList(
            ConvNorm(in_channels, out_channels, kernel=kernel, stride=stride, groups=groups)
            for kernel in kernels
        )
        has_identity = identity and in_channels == out_channels and stride == 1
        self.identity = nn.BatchNorm2d(in_channels) if has_identity else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        first, *others = self.convs
        out_BCHW = first(x_BCHW)
        for conv in others:
            out_BCHW = out_BCHW + conv(x_BCHW)
        if self.identity is not None:
            out_BCHW = out_BCHW + self.identity(x_BCHW)
        return out_BCHW

    def kernel(self) -> Kernel:
        """All branches as one kernel of the largest size."""
        convs = [conv for conv in self.convs if isinstance(conv, ConvNorm)]
        kernels = [pad_kernel(conv.kernel(), self.size) for conv in convs]
        if self.identity is not None:
            kernels.append(
                norm_kernel(self.identity, groups=self.groups, size=self.size, like=convs[0].conv.weight)
            )
        return add_kernels(*kernels)

    def fold_in_place(self) -> nn.Conv2d:
        """One convolution with bias."""
        like = next(self.parameters())
        return conv_from(self.kernel(), stride=self.stride, groups=self.groups, like=like)


def norm_kernel(norm: nn.BatchNorm2d, *, groups: int, size: Size, like: Tensor) -> Kernel:
    """A BatchNorm on its own as a kernel of size `size`."""
    return normed_kernel(identity_kernel(norm.num_features, groups=groups, size=size, like=like), norm)


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate that their means give (arXiv 1709.01507), [B, C, H, W], the same out."""

    def __init__(self, channels: int, *, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        mean_BC11 = x_BCHW.mean((2, 3), keepdim=True)
        return x_BCHW * self.gate(self.expand(self.act(self.reduce(mean_BC11))))


class ConvBlock(nn.Module):
    """Branches, optional squeeze-and-excitation, GELU: [B, C, H, W] -> [B, C', H', W']."""

    def __init__(self, conv: Branches, *, squeeze: SqueezeExcite | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.squeeze = squeeze
        self.act = nn.GELU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        out_BCHW = self.conv(x_BCHW)
        if self.squeeze is not None:
            out_BCHW = self.squeeze(out_BCHW)
        return self.act(out_BCHW)


class RepMixer(nn.Module):
    """Token mixing by a depthwise convolution that folds with its own skip: x + scale * (mix(x) - norm(x)).

    [B, C, H, W] -> [B, C, H, W] (FastViT, section 3.1).
    """

    def __init__(
        self, channels: int, *, layer_scale_init: float, kernels: tuple[int | Size, ...] = (3, 1)
    ) -> None:
        super().__init__()
        self.mix = Branches(channels, channels, kernels=kernels, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.scale = nn.Parameter(self.norm.weight.detach().new_full((channels,), layer_scale_init))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x_BCHW + self.scale[:, None, None] * (self.mix(x_BCHW) - self.norm(x_BCHW))

    def fold_in_place(self) -> nn.Conv2d:
        """One depthwise convolution, skip and layer scale included."""
        channels = self.norm.num_features
        like = self.scale
        identity = identity_kernel(channels, groups=channels, size=self.mix.size, like=like)
        norm = norm_kernel(self.norm, groups=channels, size=self.mix.size, like=like)
        scale_C = precise(self.scale)
        kernel = add_kernels(identity, scale_kernel(self.mix.kernel(), scale_C), scale_kernel(norm, -scale_C))
        return conv_from(kernel, stride=1, groups=channels, like=like)


class ConvFFN(nn.Module):
    """Large depthwise convolution, then two 1 x 1 convolutions with a GELU between.

    [B, C, H, W] -> [B, C, H, W] (FastViT, section 3.2).
    """

    def __init__(
        self, channels: int, *, hidden: int, init_std: float, kernel: int | Size = LARGE_KERNEL
    ) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, kernel=kernel, groups=channels)
        self.up = nn.Conv2d(channels, hidden, 1)
        self.act = nn.GELU()
        self.down = nn.Conv2d(hidden, channels, 1)
        nn.init.trunc_normal_(self.conv.conv.weight, std=init_std)
        for layer in (self.up, self.down):
            nn.init.trunc_normal_(layer.weight, std=init_std)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.down(self.act(self.up(self.conv(x_BCHW))))

    def scale_output(self, scale_C: Tensor) -> None:
        """Take a layer scale [C] into the last convolution."""
        scale_linear(self.down, scale_C)


class PositionalConv(nn.Module):
    """Conditional positional encoding, x + depthwise 7 x 7 convolution of x (arXiv 2102.10882).

    [B, C, H, W] -> [B, C, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, LARGE_KERNEL, padding=LARGE_KERNEL // 2, groups=channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x_BCHW + self.conv(x_BCHW)

    def fold_in_place(self) -> nn.Conv2d:
        """One depthwise convolution, skip included."""
        like = self.conv.weight
        channels = self.conv.out_channels
        identity = identity_kernel(channels, groups=channels, size=_size(LARGE_KERNEL), like=like)
        return conv_from(add_kernels(identity, conv_kernel(self.conv)), stride=1, groups=channels, like=like)


def _size(kernel: int | Size) -> Size:
    return (kernel, kernel) if isinstance(kernel, int) else kernel
