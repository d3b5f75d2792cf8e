"""Several processes that train one model: who is who, rows gathered with gradient, weights and gradients shared."""

# Shape suffixes: B rows of this process, M the most of any process, N of all processes, D width.

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

Parallel = Literal["ddp", "fsdp2"]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train together; alone by default.

    Attributes:
        rank: this process, 0 to size - 1; the first one writes, prints and evaluates.
        size: number of processes.
        local_rank: this process among those of its machine: the number of its accelerator.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_ranks(device: str) -> Generator[Ranks]:
    """Joins the processes that torchrun started, for as long as the block lasts; alone where it started none.

    Where the caller has joined them already, the block is theirs as well.

    Args:
        device: where this process trains: nccl connects cuda, gloo everything else.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    ranks = Ranks(rank=int(os.environ["RANK"]), size=size, local_rank=int(os.environ["LOCAL_RANK"]))
    if dist.is_initialized():  # the caller's: to join a second time after leaving is not safe
        yield ranks
        return
    if device == "cuda":
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True, kw_only=True)
class Share:
    """This process's rows among those of all, for one step.

    Attributes:
        counts: rows of each process; they differ when one of them had to drop a sample.
        rank: this process.
    """

    counts: tuple[int, ...]
    rank: int

    @property
    def first(self) -> int:
        """Where this process's rows begin."""
        return sum(self.counts[: self.rank])

    @property
    def weight(self) -> float:
        """What a mean over this process's rows counts in a mean over processes that is the mean over all rows."""
        return len(self.counts) * self.counts[self.rank] / sum(self.counts)


def share_rows(num_rows: int, *, ranks: Ranks, device: torch.device | str) -> Share:
    """Tells every process how many rows each has; all processes call it."""
    if ranks.size == 1:
        return Share(counts=(num_rows,), rank=0)
    counts = torch.zeros(ranks.size, dtype=torch.int64, device=device)
    counts[ranks.rank] = num_rows
    dist.all_reduce(counts)
    return Share(counts=tuple(counts.tolist()), rank=ranks.rank)


def gather_rows(rows_BD: Tensor, *, share: Share) -> Tensor:
    """Rows of all processes [N, D], in their order, with gradient; all processes call it."""
    if len(share.counts) == 1:
        return rows_BD
    return cast("Tensor", _Gather.apply(rows_BD, share))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows_BD: Tensor, share: Share) -> Tensor:
        ctx.share = share  # ty: ignore[missing-attribute]
        most = max(share.counts)
        padded_MD = rows_BD.new_zeros(most, *rows_BD.shape[1:])
        padded_MD[: len(rows_BD)] = rows_BD
        parts = [torch.empty_like(padded_MD) for _ in share.counts]
        dist.all_gather(parts, padded_MD)
        return torch.cat([part[:count] for part, count in zip(parts, share.counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_ND: Tensor) -> tuple[Tensor, None]:
        share: Share = ctx.share  # ty: ignore[missing-attribute]
        grad_ND = grad_ND.contiguous()
        dist.all_reduce(grad_ND)
        return grad_ND[share.first : share.first + share.counts[share.rank]], None


def spread(model: nn.Module, *, ranks: Ranks, parallel: Parallel, units: Iterable[nn.Module]) -> nn.Module:
    """The module to call in training, whose gradients are those of all processes' rows.

    Args:
        model: on its device, the same on every process; fsdp2 shards it in place.
        ranks: the processes; where there is one, `model` comes back as it is.
        parallel: ddp keeps a whole model on every process; fsdp2 keeps a part of each weight, and puts a unit
            together only while it computes.
        units: parts of the model that fsdp2 puts together one at a time.
    """
    if ranks.size == 1:
        return model
    if parallel == "fsdp2":
        model.to(memory_format=torch.contiguous_format)  # it shards no other layout
        scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}  # it shards none
        for unit in units:
            fully_shard(unit)
        fully_shard(model, ignored_params=scalars)
        return model
    cuda = next(model.parameters()).device.type == "cuda"
    runner = DistributedDataParallel(
        model,
        device_ids=[ranks.local_rank] if cuda else None,
        gradient_as_bucket_view=True,
    )
    # Every process has the same buffers, or only the first one's are ever kept: none are worth sending. The argument of
    # the constructor has two names by now; the attribute has one.
    runner.broadcast_buffers = False
    return runner


@contextmanager
def gradients_kept_back(runner: nn.Module) -> Generator[None]:
    """Backward passes in the block add to this process's gradients alone; the next one outside sends all."""
    if isinstance(runner, DistributedDataParallel):
        with runner.no_sync():
            yield
        return
    sharded = [m for m in runner.modules() if hasattr(m, "set_requires_gradient_sync")]
    for module in sharded:
        cast("Any", module).set_requires_gradient_sync(False, recurse=False)
    yield
    for module in sharded:
        cast("Any", module).set_requires_gradient_sync(True, recurse=False)


def average_left_out(model: nn.Module) -> None:
    """Averages over the processes the gradients that fsdp2 leaves to each of them: those of scalars."""
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        for parameter in model.parameters():
            if not isinstance(parameter, DTensor) and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()


@torch.no_grad()
def clip_gradient(model: nn.Module, *, largest: float) -> float:
    """Scales the whole gradient down to the norm `largest` where it is longer, and returns its norm before."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    squares = [
        whole(nn.utils.get_total_norm(group)).double().square()
        for sharded in (False, True)  # one call takes tensors of one kind
        if (group := [gradient for gradient in gradients if isinstance(gradient, DTensor) is sharded])
    ]
    norm = float(torch.stack(squares).sum().sqrt())
    if norm > largest:
        for gradient in gradients:
            gradient.mul_(largest / norm)
    return norm


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that fsdp2 has sharded, on every process; any other comes back as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, place: Tensor) -> Tensor:
    """A whole tensor laid out as `place` is: sharded where it is sharded, with the same strides where it has them."""
    if isinstance(place, DTensor) and tensor.shape == place.shape:
        return distribute_tensor(tensor.to(place.device), place.device_mesh, place.placements)
    if tensor.shape == place.shape:
        return torch.empty_like(place, dtype=tensor.dtype).copy_(tensor)
    return tensor.to(place.device).clone()


def first_decides(decide: Callable[[], Sequence[float]], *, ranks: Ranks, count: int) -> list[float]:
    """Numbers that the first process computes and all get.

    Args:
        decide: called on the first process alone.
        ranks: the processes.
        count: how many numbers `decide` gives.
    """
    if ranks.size == 1:
        return list(decide())
    numbers = torch.zeros(count, dtype=torch.float64)
    if ranks.is_first:
        numbers[:] = torch.tensor(list(decide()), dtype=torch.float64)
    if dist.get_backend() == "nccl":
        numbers = numbers.cuda()
    dist.broadcast(numbers, src=0)
    return numbers.tolist()


def mean_over_ranks(values: Mapping[str, float], *, ranks: Ranks) -> dict[str, float]:
    """The processes' means of values that all have under the same names; all processes call it."""
    if ranks.size == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    total = total.cuda() if dist.get_backend() == "nccl" else total
    dist.all_reduce(total)
    return dict(zip(values, (total / ranks.size).tolist(), strict=True))
