"""Trains a model on plain or reinforced shards: one folder a run, which goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from pocketclip.checkpoint import Loaded, create, load, save, save_state, variant_config
from pocketclip.data.index import split_shards
from pocketclip.data.stream import Batch, Position, Stream, StreamConfig
from pocketclip.fit import (
    Hooks,
    Journal,
    LoopConfig,
    OptimConfig,
    Ranks,
    Saver,
    State,
    TrackConfig,
    fit,
    joined_ranks,
    open_trackers,
)
from pocketclip.train.folder import RunFolder
from pocketclip.train.objective import Objective, ObjectiveConfig
from pocketclip.train.record import describe_run

Evaluator = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete run.

    Attributes:
        name: of the recipe.
        variant: of the model.
        seed: of the initial weights and everything drawn in the towers.
        split: of the data folder.
        stream: samples to batches.
        objective: the loss and its weights.
        optim: optimizer and schedule.
        loop: lengths and intervals.
        device: where to train.
    """

    name: str
    variant: str
    seed: int = 0
    split: str = "train"
    stream: StreamConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig
    device: Literal["cpu", "cuda", "mps"] = "cpu"

    def __post_init__(self) -> None:
        if self.objective.distill_weight > 0.0 and not self.stream.replay:
            raise ValueError(
                "objective.distill_weight needs the teachers' embeddings of reinforced shards: set stream.replay"
            )
        if self.objective.synthetic_weight > 0.0 and self.stream.synthetic is None:
            raise ValueError(
                "objective.synthetic_weight needs synthetic captions: set stream.synthetic to the captioners' names, "
                "a regular expression ('.*' for all)"
            )


def train(
    config: TrainConfig,
    *,
    data: Path,
    out: Path,
    evaluate: Evaluator | None = None,
    track: TrackConfig | None = None,
) -> Path:
    """Trains, or goes on training, and returns the checkpoint's path; under torchrun, with all its processes.

    Args:
        config: the run.
        data: a folder of shards; reinforced ones where `config.stream.replay`.
        out: the run's folder: config.json, metrics.jsonl, events/, dropped.jsonl where there is something to list,
            states/ while it runs, checkpoint.safetensors at its end.
        evaluate: called by the loop with a model in evaluation mode.
        track: where curves go besides metrics.jsonl; None for nowhere.

    Raises:
        ValueError: the folder holds another run; shards and recipe do not fit; training has diverged.
        StoppedError: SIGTERM came; the same call goes on.
    """
    _check_size(config)
    record = describe_run(config, data=data)
    folder = RunFolder(out, record)
    if folder.checkpoint.is_file():
        folder.clear()  # of a run killed between its checkpoint and its end
        return folder.checkpoint
    with joined_ranks(config.device) as ranks:
        _train(config, data=data, folder=folder, record=record, evaluate=evaluate, track=track, ranks=ranks)
        ranks.wait()
    return folder.checkpoint


def _train(
    config: TrainConfig,
    *,
    data: Path,
    folder: RunFolder,
    record: dict[str, Any],
    evaluate: Evaluator | None,
    track: TrackConfig | None,
    ranks: Ranks,
) -> None:
    start = _initial(config, ranks=ranks)
    state = folder.latest_state()
    with ExitStack() as stack:
        stream = stack.enter_context(
            Stream(
                split_shards(data, config.split),
                config=config.stream,
                tokenizer=start.tokenizer,
                position=Position(*state["position"]) if state else None,
                rank=ranks.rank,
                num_ranks=ranks.size,
            )
        )
        hooks = Hooks(save=_nowhere, record=_nowhere, evaluate=evaluate, label=config.name, units=_units)
        if ranks.is_first:
            folder.claim()  # only now: shards that do not fit leave the folder free
            step = state["step"] if state else 0
            hooks = replace(
                hooks,
                save=_keeper(stream, folder=folder, keep=config.loop.keep_states, stack=stack),
                record=_recorder(folder, record=record, track=track, step=step, stack=stack),
                keep_best=lambda model: _save(folder.best, model, start=start, record=record),
            )
        objective = Objective(
            config.objective, preprocess=start.config.preprocess, device=config.device, ranks=ranks
        )
        weights = fit(
            start.model.train(),
            objective=objective,
            batches=_listing_dropped(stream, folder=folder),
            num_samples=_num_samples,
            optim=config.optim,
            loop=config.loop,
            hooks=hooks,
            seed=config.seed,
            ranks=ranks,
            state=state,
        )
    ranks.wait()  # every process has listed what it dropped
    if ranks.is_first:
        record["dropped"] = [asdict(dropped) for dropped in folder.dropped()]
        kept = create(config.variant).model
        kept.load_state_dict(weights)
        if folder.best.is_file():
            kept = load(folder.best).model
        _save(folder.checkpoint, kept, start=start, record=record)
        folder.clear()


def _check_size(config: TrainConfig) -> None:
    wanted = variant_config(config.variant).preprocess.size
    if config.stream.image_px != wanted:
        raise ValueError(
            f"recipe {config.name}: stream.image_px is {config.stream.image_px} but {config.variant} takes pictures of "
            f"{wanted} px: set stream.image_px to that"
        )


def _initial(config: TrainConfig, *, ranks: Ranks) -> Loaded:
    torch.manual_seed(config.seed)
    device = f"cuda:{ranks.local_rank}" if config.device == "cuda" else config.device
    return create(config.variant).to(device)


def _units(model: nn.Module) -> list[nn.Module]:
    """The blocks of both towers: every tower and stage calls them so."""
    lists = [part for module in model.modules() for name, part in module.named_children() if name == "blocks"]
    return [block for part in lists for block in part.children()]


def _keeper(stream: Stream, *, folder: RunFolder, keep: int, stack: ExitStack) -> Callable[[State], None]:
    saver = stack.enter_context(Saver(folder.states, write=save_state, keep=keep))

    def keep_state(state: State) -> None:
        saver({**state, "position": (stream.position.epoch, stream.position.sample)})

    return keep_state


def _recorder(
    folder: RunFolder,
    *,
    record: Mapping[str, Any],
    track: TrackConfig | None,
    step: int,
    stack: ExitStack,
) -> Callable[[Mapping[str, float]], None]:
    journal = Journal(folder.metrics, step=step)
    tracked = (
        stack.enter_context(
            open_trackers(
                track, folder=folder.events, name=folder.path.name, settings=record["config"], step=step
            )
        )
        if track
        else _nowhere
    )

    def keep_record(values: Mapping[str, float]) -> None:
        journal.append(values)
        tracked(values)

    return keep_record


def _listing_dropped(stream: Stream, *, folder: RunFolder) -> Iterator[Batch]:
    for batch in stream:
        folder.list_dropped(batch.dropped)
        yield batch


def _save(path: Path, model: nn.Module, *, start: Loaded, record: Mapping[str, Any]) -> None:
    save(path, cast("Any", model), config=replace(start.config, run=record), tokenizer=start.tokenizer)


def _nowhere(_: object) -> None:
    """What the processes but the first save and record."""


def _num_samples(batch: Batch) -> int:
    return len(batch.keys)
