"""The training loop: steps, moving average, evaluation, saved states; it knows nothing of what it trains."""

from __future__ import annotations

import copy
import math
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pocketclip.fit.meter import Meter
from pocketclip.fit.norm import share_norms
from pocketclip.fit.optim import OptimConfig, WeightAverage, make_adamw, optimizer_state, restore_optimizer
from pocketclip.fit.ranks import (
    Parallel,
    Ranks,
    first_decides,
    like,
    mean_over_ranks,
    spread,
    whole,
)
from pocketclip.fit.saver import State
from pocketclip.fit.schedule import cosine
from pocketclip.fit.step import Objective, Precision, Stepper

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how, and how often the run reports, evaluates and saves.

    Attributes:
        num_steps: optimizer steps of the whole run.
        average_decay: of the moving average of weights that is evaluated and kept; None keeps the last weights.
        log_every: steps between records of metrics.jsonl.
        evaluate_every: steps between evaluations; 0 for none but at the end.
        save_every: steps between saved states.
        keep_states: how many saved states stay.
        best: metric of the evaluation whose highest value marks the weights to keep; None keeps the last.
        patience: evaluations without a higher `best` after which the run ends; 0 for never.
        precision: of the forward pass: fp32, or autocast to bf16 or fp16.
        parts: a batch goes through the model in so many parts, with the loss of the whole.
        compile: run the model through torch.compile.
        parallel: how several processes share the work: ddp, or fsdp2 for models that fill a device.
        shared_norms: BatchNorms normalise with the statistics of all processes together.
        skip_limit: steps in a row whose gradient is not finite after which the run ends; each is skipped.
    """

    num_steps: int
    average_decay: float | None = None
    log_every: int = 10
    evaluate_every: int = 0
    save_every: int = 50
    keep_states: int = 1
    best: str | None = None
    patience: int = 0
    precision: Precision = "fp32"
    parts: int = 1
    compile: bool = False
    parallel: Parallel = "ddp"
    shared_norms: bool = True
    skip_limit: int = 10

    def __post_init__(self) -> None:
        counts = (self.num_steps, self.log_every, self.save_every, self.keep_states, self.parts)
        if min(counts) < 1 or min(self.evaluate_every, self.skip_limit, self.patience) < 0:
            raise ValueError(
                "num_steps, log_every, save_every, keep_states and parts must be at least 1, "
                "evaluate_every, patience and skip_limit at least 0"
            )
        if self.patience and self.best is None:
            raise ValueError("patience counts evaluations without a better `best`: name that metric")


def _no_units(_: nn.Module) -> Iterable[nn.Module]:
    """The whole model is put together at once."""
    return ()


class StoppedError(InterruptedError):
    """A signal asked the run to end; its state is saved."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls.

    Attributes:
        save: takes a copy of a state before it returns: the next step changes its tensors. Called on the first process.
        keep_best: keeps a model that is better than all before, in evaluation mode; or None.
        evaluate: metrics of a model in evaluation mode, or None on every process. Called on the first one.
        record: takes a record of a step.
        label: of the progress bar.
        units: parts of a model that fsdp2 puts together one at a time.
    """

    save: Callable[[State], None]
    keep_best: Callable[[nn.Module], None] | None = None
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None
    record: Callable[[Mapping[str, float]], None]
    label: str
    units: Callable[[nn.Module], Iterable[nn.Module]] = _no_units


def fit(
    model: nn.Module,
    *,
    objective: Objective[BatchT],
    batches: Iterator[BatchT],
    num_samples: Callable[[BatchT], int],
    optim: OptimConfig,
    loop: LoopConfig,
    hooks: Hooks,
    seed: int = 0,
    ranks: Ranks | None = None,
    state: State | None = None,
) -> dict[str, Tensor]:
    """Trains `model` in place and returns the weights to keep: its last, or their moving average.

    Args:
        model: in any mode; the same on every process.
        objective: what is minimised.
        batches: of this process, already standing where `state` stopped.
        num_samples: size of a batch.
        optim: optimizer and schedule.
        loop: lengths and intervals.
        hooks: saving, evaluation, records.
        seed: of everything that the model draws.
        ranks: the processes that train together; None trains alone.
        state: as `hooks.save` was given it, to go on from; with the same number of processes the result is that of an
            undisturbed run, bit for bit.

    Returns:
        The model's state dict: every tensor [D0, D1, ...] whole, on every process.

    Raises:
        ValueError: the gradient was not finite too often; the last saved state stands.
        StoppedError: SIGTERM came; the state of the last step is saved.
    """
    ranks = ranks or Ranks()
    run = _Run.begin(
        model, objective=objective, optim=optim, loop=loop, hooks=hooks, seed=seed, ranks=ranks, state=state
    )
    meter = Meter()
    with run.bar() as bar, _asked_to_stop() as asked:
        while run.step < loop.num_steps:
            values = run.advance(meter.next(batches, num_samples))
            bar.update()
            if _due(run.step, every=loop.log_every, last=loop.num_steps):
                run.report(values, meter=meter, bar=bar)
            if _due(run.step, every=loop.evaluate_every, last=loop.num_steps):
                with meter.paused():
                    run.evaluate()
            stop = _anyone_asked(asked, ranks=ranks)
            if stop or run.is_worth_saving():
                run.save()
            if stop:
                raise StoppedError(
                    f"{hooks.label} was asked to stop after step {run.step} of {loop.num_steps}; its state is saved, "
                    "the same command goes on from there"
                )
            if loop.patience and run.evaluations_since_best >= loop.patience:
                break
    return run.kept_weights()


@dataclass(kw_only=True)
class _Run(Generic[BatchT]):
    """A run under way."""

    stepper: Stepper[BatchT]
    spare: nn.Module | None  # the first process evaluates weights in it
    average: WeightAverage | None
    optim: OptimConfig
    loop: LoopConfig
    hooks: Hooks
    ranks: Ranks
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = -math.inf
    evaluations_since_best: int = 0

    @classmethod
    def begin(
        cls,
        model: nn.Module,
        *,
        objective: Objective[BatchT],
        optim: OptimConfig,
        loop: LoopConfig,
        hooks: Hooks,
        seed: int,
        ranks: Ranks,
        state: State | None,
    ) -> _Run[BatchT]:
        device = next(model.parameters()).device.type
        spare = copy.deepcopy(model).eval() if hooks.evaluate and ranks.is_first else None
        together = loop.shared_norms and ranks.size > 1
        if together or not loop.compile:  # the compiler makes one kernel of a BatchNorm of torch's own
            share_norms(model, device=device, together=together)
        runner = spread(model, ranks=ranks, parallel=loop.parallel, units=hooks.units(model))
        stepper = Stepper(
            model=model,
            runner=torch.compile(runner) if loop.compile else runner,  # ty: ignore[invalid-argument-type]
            objective=objective,
            optimizer=make_adamw(model, config=optim),
            scaler=torch.amp.GradScaler(device, enabled=loop.precision == "fp16"),
            precision=loop.precision,
            clip_norm=optim.clip_norm,
            parts=loop.parts,
            seed=seed,
            rank=ranks.rank,
        )
        average = WeightAverage(model, decay=loop.average_decay) if loop.average_decay is not None else None
        run = cls(
            stepper=stepper, spare=spare, average=average, optim=optim, loop=loop, hooks=hooks, ranks=ranks
        )
        if state:
            run.restore(state)
        return run

    def bar(self) -> tqdm:
        """How far the run is, shown by the first process; seldom redrawn where a file is written."""
        return tqdm(
            total=self.loop.num_steps,
            initial=self.step,
            desc=self.hooks.label,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 10,
            disable=not self.ranks.is_first,
        )

    def report(self, values: Mapping[str, float], *, meter: Meter, bar: tqdm) -> None:
        """Records a step's values, the means of all processes, and how fast the run has been; all take part."""
        rates = meter.rates(self.ranks.size)
        values = mean_over_ranks(values, ranks=self.ranks)
        bar.set_postfix(loss=f"{values['loss']:.3f}", samples_per_s=f"{rates['samples_per_s']:.0f}")
        self.hooks.record({"step": self.step, **values, **rates, "skipped_steps": self.skipped})

    def advance(self, batch: BatchT) -> dict[str, float]:
        """One step."""
        lr = cosine(
            self.step,
            num_steps=self.loop.num_steps,
            warmup_steps=self.optim.warmup_steps,
            lr_peak=self.optim.lr_peak,
            lr_floor=self.optim.lr_floor,
        )
        values = self.stepper(batch, step=self.step + 1, lr=lr)
        self.step += 1
        if math.isfinite(values["grad_norm"]):
            self.skipped_in_a_row = 0
            if self.average:
                self.average.update(self.stepper.model)
        else:
            self._count_skipped(values)
        return {"lr": lr, **values}

    def _count_skipped(self, values: Mapping[str, float]) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        wrong = ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))
        if self.skipped_in_a_row > self.loop.skip_limit:
            raise ValueError(
                f"training has diverged: {wrong} at step {self.step}, and no finite gradient in "
                f"{self.skipped_in_a_row} steps; start again in another folder with a lower lr_peak or more "
                "warmup_steps; the last saved state is from before"
            )
        if self.ranks.is_first:
            tqdm.write(f"step {self.step} is skipped: {wrong}", file=sys.stderr)

    def evaluate(self) -> None:
        """Records the metrics of the weights to keep, and keeps the best."""
        if self.hooks.evaluate is None:
            return
        weights = self.kept_weights()  # all processes take part

        def measured() -> tuple[float, float]:
            assert self.hooks.evaluate is not None
            assert self.spare is not None
            self.spare.load_state_dict(weights)
            metrics = dict(self.hooks.evaluate(self.spare))
            self.hooks.record({"step": self.step, **metrics})
            if self.loop.best is None:
                return self.best, 0.0
            if self.loop.best not in metrics:
                raise ValueError(
                    f"best is {self.loop.best!r}, and the evaluation has no such metric: it has {', '.join(metrics)}"
                )
            better = metrics[self.loop.best] > self.best
            if better and self.hooks.keep_best:
                self.hooks.keep_best(self.spare)
            return (metrics[self.loop.best], 0.0) if better else (self.best, self.evaluations_since_best + 1)

        best, since = first_decides(measured, ranks=self.ranks, count=2)
        self.best, self.evaluations_since_best = best, int(since)

    def kept_weights(self) -> dict[str, Tensor]:
        """The average, or the weights themselves: whole; all processes take part."""
        weights = self.average.tensors if self.average else self.stepper.model.state_dict()
        return {name: whole(value).detach() for name, value in weights.items()}

    def is_worth_saving(self) -> bool:
        """Whether a state is due, and good: while steps are skipped, one from before may be the last good one."""
        due = self.step % self.loop.save_every == 0 and self.step < self.loop.num_steps
        return due and self.skipped_in_a_row == 0

    def save(self) -> None:
        """Hands the state to the first process's hook; all processes take part."""
        model = self.stepper.model
        average = self.average.tensors if self.average else {}
        state = {
            "step": self.step,
            "model": {name: whole(value) for name, value in model.state_dict().items()},
            "optimizer": optimizer_state(self.stepper.optimizer, model),
            "average": {name: whole(value) for name, value in average.items()},
            "scaler": self.stepper.scaler.state_dict(),
            "skipped": [self.skipped, self.skipped_in_a_row],
            "best": [self.best, self.evaluations_since_best],
        }
        if self.ranks.is_first:
            self.hooks.save(state)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Goes on from a saved state."""
        model = self.stepper.model
        for name, value in model.state_dict().items():
            value.copy_(like(state["model"][name], value))
        restore_optimizer(self.stepper.optimizer, model, state["optimizer"])
        if self.average:
            self.average.restore(state["average"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])
        self.skipped, self.skipped_in_a_row = state["skipped"]
        self.best, self.evaluations_since_best = state["best"]


def _due(step: int, *, every: int, last: int) -> bool:
    """Whether something is done after `step`: at each multiple of `every` (0: never), and at the end."""
    return step == last or (every > 0 and step % every == 0)


@contextmanager
def _asked_to_stop() -> Generator[threading.Event]:
    """An event that SIGTERM sets, as schedulers send it before they take a machine away."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield asked
        return

    def catch(_: int, __: FrameType | None) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, catch)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _anyone_asked(asked: threading.Event, *, ranks: Ranks) -> bool:
    """Whether a process was asked to stop: all stop after the same step."""
    if ranks.size == 1:
        return asked.is_set()
    flag: Any = torch.tensor(float(asked.is_set()))
    if torch.distributed.get_backend() == "nccl":
        flag = flag.cuda()
    torch.distributed.all_reduce(flag)
    return bool(flag > 0)
