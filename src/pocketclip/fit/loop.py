"""The training loop: steps, clipping, moving average, evaluation, saved state; it knows nothing of what it trains."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pocketclip.fit.journal import Journal
from pocketclip.fit.optim import OptimConfig, WeightAverage, make_adamw, restore_optimizer
from pocketclip.fit.schedule import cosine

BatchT = TypeVar("BatchT")
ModelT = TypeVar("ModelT", bound=nn.Module)
State = dict[str, Any]  # a tree of tensors, numbers and strings


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, and how often the run reports, evaluates and saves.

    Attributes:
        num_steps: optimizer steps of the whole run.
        average_decay: of the moving average of weights that is evaluated and kept; None keeps the last weights.
        log_every: steps between records of metrics.jsonl.
        evaluate_every: steps between evaluations; 0 for none but at the end.
        save_every: steps between saved states.
    """

    num_steps: int
    average_decay: float | None = None
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 50

    def __post_init__(self) -> None:
        if min(self.num_steps, self.log_every, self.save_every) < 1 or self.evaluate_every < 0:
            raise ValueError(
                "num_steps, log_every and save_every must be at least 1, evaluate_every at least 0"
            )


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls.

    Attributes:
        save: keeps a state, before it returns: the next step changes its tensors. Called after `save_every` steps.
        evaluate: metrics of a model in evaluation mode, or None.
        journal: where records go.
        label: of the progress bar.
    """

    save: Callable[[State], None]
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None
    journal: Journal
    label: str


def fit(
    model: ModelT,
    *,
    loss: Callable[[nn.Module, BatchT], Mapping[str, Tensor]],
    batches: Iterator[BatchT],
    num_samples: Callable[[BatchT], int],
    optim: OptimConfig,
    loop: LoopConfig,
    hooks: Hooks,
    state: State | None = None,
) -> ModelT:
    """Trains `model` in place and returns the one to keep: itself, or its moving average.

    Args:
        model: in any mode.
        loss: terms by name, each a scalar; `loss` is what is minimised.
        batches: already standing where `state` stopped.
        num_samples: size of a batch.
        optim: optimizer and schedule.
        loop: lengths and intervals.
        hooks: saving, evaluation, records.
        state: as `hooks.save` was given it, to go on from; the result is that of an undisturbed run, bit for bit.

    Raises:
        ValueError: the loss is not finite; the last saved state stands.
    """
    optimizer = make_adamw(model, config=optim)
    average = WeightAverage(model, decay=loop.average_decay) if loop.average_decay is not None else None
    first = _restore(state, model=model, optimizer=optimizer, average=average) if state else 0
    meter = _Meter()
    interval = 0.5 if sys.stderr.isatty() else 10
    with tqdm(
        total=loop.num_steps, initial=first, desc=hooks.label, unit="step", mininterval=interval
    ) as bar:
        for done in range(first + 1, loop.num_steps + 1):
            batch = meter.next(batches, num_samples)
            lr = _rate(done - 1, optim=optim, num_steps=loop.num_steps)
            terms = _step(
                model, batch, loss=loss, optimizer=optimizer, lr=lr, clip_norm=optim.clip_norm, step=done
            )
            if average:
                average.update(model)
            bar.update()
            if _due(done, every=loop.log_every, last=loop.num_steps):
                rates = meter.rates()
                bar.set_postfix(loss=f"{terms['loss']:.3f}", samples_per_s=f"{rates['samples_per_s']:.0f}")
                hooks.journal.append({"step": done, "lr": lr, **terms, **rates})
            if hooks.evaluate and _due(done, every=loop.evaluate_every, last=loop.num_steps):
                with meter.paused():
                    hooks.journal.append({"step": done, **hooks.evaluate(_kept(model, average).eval())})
                    model.train()
            if done % loop.save_every == 0 and done < loop.num_steps:
                hooks.save(_state(done, model=model, optimizer=optimizer, average=average))
    return _kept(model, average)


def _due(step: int, *, every: int, last: int) -> bool:
    """Whether something is done after `step`: at each multiple of `every` (0: never), and at the end."""
    return step == last or (every > 0 and step % every == 0)


def _rate(step: int, *, optim: OptimConfig, num_steps: int) -> float:
    return cosine(
        step,
        num_steps=num_steps,
        warmup_steps=optim.warmup_steps,
        lr_peak=optim.lr_peak,
        lr_floor=optim.lr_floor,
    )


class _Meter:
    """Samples a second and the share of time spent waiting for data, since the last reading."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._started, self._waited, self._seen = time.monotonic(), 0.0, 0

    def next(self, batches: Iterator[BatchT], num_samples: Callable[[BatchT], int]) -> BatchT:
        """The next batch, its wait counted."""
        before = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - before
        self._seen += num_samples(batch)
        return batch

    @contextmanager
    def paused(self) -> Generator[None]:
        """Time that is not training's."""
        before = time.monotonic()
        yield
        self._started += time.monotonic() - before

    def rates(self) -> dict[str, float]:
        """Reads the meter and starts it anew."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        read = {"samples_per_s": self._seen / elapsed, "data_wait_share": self._waited / elapsed}
        self._restart()
        return read


def _step(
    model: nn.Module,
    batch: BatchT,
    *,
    loss: Callable[[nn.Module, BatchT], Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    lr: float,
    clip_norm: float,
    step: int,
) -> dict[str, float]:
    """One update; returns the loss terms and the gradient's norm."""
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    terms = loss(model, batch)
    terms["loss"].backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    values = {name: float(value.detach()) for name, value in terms.items()} | {"grad_norm": float(norm)}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name} is {value} at step {step}: training has diverged; start again in another folder with a "
                "lower lr_peak or more warmup_steps; the last saved state is from before"
            )
    optimizer.step()
    return values


def _kept(model: ModelT, average: WeightAverage | None) -> ModelT:
    if average is None:
        return model
    kept = copy.deepcopy(model)
    kept.load_state_dict(average.tensors)
    return kept


def _state(
    step: int, *, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> State:
    return {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.tensors if average else {},
        "rng": {device: _random_state(device) for device in _devices(model)},
    }


def _restore(
    state: State, *, model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> int:
    model.load_state_dict(state["model"])
    restore_optimizer(optimizer, state["optimizer"])
    if average:
        average.restore(state["average"])
    for device in _devices(model):
        _set_random_state(device, state["rng"][device])
    return int(state["step"])


def _devices(model: nn.Module) -> list[str]:
    """Where the model may draw random numbers (stochastic depth): the CPU's generator and its own device's."""
    return sorted({"cpu", *(parameter.device.type for parameter in model.parameters())})


def _random_state(device: str) -> Tensor:
    return torch.get_rng_state() if device == "cpu" else torch.get_device_module(device).get_rng_state()


def _set_random_state(device: str, state: Tensor) -> None:
    if device == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state)
