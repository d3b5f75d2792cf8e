"""BatchNorm whose statistics are those of all processes together, and are added up exactly.

torch's own adds up the maps of channels-last pictures on a CPU one float32 after the other: at 64 pictures of 48 x 48
places a mean of 5 is wrong by 6e-5, and the same pictures on two processes have another. Here short sums in float32 are
added up in float64, so that it does not matter who adds up what.
"""

# Shape suffixes: B pictures, K pictures of a chunk, C channels, H height, W width.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

# Elements of a chunk: 0.5 MB in float32, so that what is computed of it stays in a processor's cache.
_CHUNK_ELEMENTS = 2**17


def share_norms(model: nn.Module, *, device: str, together: bool) -> None:
    """Puts exact BatchNorms in the place of a model's own, in place; parameters and buffers stay.

    Args:
        model: to train.
        device: cpu gets `ExactBatchNorm`; others torch's SyncBatchNorm, or keep their own where there is one process.
        together: with the statistics of all processes; each has its own otherwise.
    """
    if device != "cpu" and not together:
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                synced = nn.SyncBatchNorm.convert_sync_batchnorm
                setattr(parent, name, _exact(child, together=together) if device == "cpu" else synced(child))


class ExactBatchNorm(nn.BatchNorm2d):
    """A BatchNorm2d that normalises with exactly added statistics; parameters and buffers are in the same places.

    Attributes:
        together: whether the statistics are those of all processes.
    """

    together = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name nn.BatchNorm2d has
        """[B, C, H, W] -> [B, C, H, W]."""
        if not self.training:
            return super().forward(input)
        found = _Normalise.apply(input, self.weight, self.bias, self.eps, self.together)
        out_BCHW, mean_C, variance_C, places = cast("tuple[Tensor, Tensor, Tensor, Tensor]", found)
        self._follow(mean_C, variance_C * (places / (places - 1.0)))
        return out_BCHW

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance_C.to(self.running_var.dtype), self.momentum)


def _exact(norm: nn.BatchNorm2d, *, together: bool) -> ExactBatchNorm:
    exact = ExactBatchNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    exact.together = together
    exact.weight, exact.bias = norm.weight, norm.bias
    exact.running_mean, exact.running_var = norm.running_mean, norm.running_var
    exact.num_batches_tracked = norm.num_batches_tracked
    return exact.train(norm.training)


class _Normalise(torch.autograd.Function):
    """Gives the normalised maps, and the mean and variance [C] and number of places that they were normalised with."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, together: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = weight_C.dtype
        places = torch.tensor(x_BCHW.numel() / x_BCHW.shape[1], dtype=torch.float64)
        sums_C = _added(_sums(part) for part in _chunks(x_BCHW))
        if together:
            both = torch.cat([sums_C, places[None]])
            dist.all_reduce(both)
            sums_C, places = both[:-1], both[-1]
        mean_C = (sums_C / places).to(dtype)
        mean_C11 = mean_C[:, None, None]
        squares_C = _added(_sums((part - mean_C11).square_()) for part in _chunks(x_BCHW))
        if together:
            dist.all_reduce(squares_C)
        variance_C = (squares_C / places).to(dtype)
        out_BCHW = F.batch_norm(x_BCHW, mean_C, variance_C, weight_C, bias_C, training=False, eps=eps)
        ctx.save_for_backward(x_BCHW, weight_C, mean_C, torch.rsqrt(variance_C + eps), places)
        ctx.together = together  # ty: ignore[missing-attribute]
        ctx.mark_non_differentiable(mean_C, variance_C, places)
        return out_BCHW, mean_C, variance_C, places

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_BCHW: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x_BCHW, weight_C, mean_C, inverse_C, places = ctx.saved_tensors  # ty: ignore[missing-attribute]
        if ctx.together:  # ty: ignore[missing-attribute]
            by_x, by_weight, by_bias = _gradients(x_BCHW, grad_BCHW, weight_C, mean_C, inverse_C, places)
        else:  # torch's own, in which a wrong last digit of a sum has next to no weight
            # fmt: off
            by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
                grad_BCHW, x_BCHW, weight_C, None, None, mean_C, inverse_C, True, 0.0, [True, True, True]
            )
            # fmt: on
        return by_x, by_weight, by_bias, None, None


def _gradients(
    x_BCHW: Tensor, grad_BCHW: Tensor, weight_C: Tensor, mean_C: Tensor, inverse_C: Tensor, places: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """By the maps, the weight and the bias; the latter two of this process's maps alone."""
    dtype, mean_C11 = weight_C.dtype, mean_C[:, None, None]
    pairs = list(zip(_chunks(x_BCHW), _chunks(grad_BCHW), strict=True))
    level_C = _added(_sums(grad) for _, grad in pairs)
    slope_C = _added(_sums((x - mean_C11).mul_(grad)) for x, grad in pairs)
    by_weight_C, by_bias_C = slope_C.to(dtype) * inverse_C, level_C.to(dtype)
    both_2C = torch.stack([level_C, slope_C])
    dist.all_reduce(both_2C)
    level_C11, slope_C11 = ((both_2C / places).to(dtype)[..., None, None]).unbind()
    slope_C11 = slope_C11 * inverse_C.square()[:, None, None]
    gain_C11 = (weight_C * inverse_C)[:, None, None]
    by_x_BCHW = torch.empty_like(x_BCHW)
    for (x, grad), place in zip(pairs, _chunks(by_x_BCHW), strict=True):
        place.copy_(torch.addcmul(grad - level_C11, x - mean_C11, slope_C11, value=-1).mul_(gain_C11))
    return by_x_BCHW, by_weight_C, by_bias_C


def _chunks(x_BCHW: Tensor) -> Sequence[Tensor]:
    """A few pictures at a time."""
    return x_BCHW.split(max(1, _CHUNK_ELEMENTS // x_BCHW[0].numel()))


def _sums(part_KCHW: Tensor) -> Tensor:
    """Of each channel, [C]."""
    return part_KCHW.sum((0, 2, 3), dtype=torch.promote_types(part_KCHW.dtype, torch.float32))


def _added(sums: Iterable[Tensor]) -> Tensor:
    """The sum of sums [C], in float64."""
    first, *others = sums
    return torch.stack([first, *others]).sum(0, dtype=torch.float64) if others else first.double()
