"""Trains a model on plain or reinforced shards: one folder a run, which goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from pocketclip.checkpoint import Loaded, load, save, save_state
from pocketclip.checkpoint.loaded import assemble
from pocketclip.data.index import split_shards
from pocketclip.data.stream import Batch, Position, Stream
from pocketclip.fit import (
    Hooks,
    Journal,
    Ranks,
    Saver,
    State,
    TrackConfig,
    fit,
    joined_ranks,
    open_trackers,
)
from pocketclip.train.captioner import CaptionerObjective, check_captioner
from pocketclip.train.config import TrainConfig
from pocketclip.train.folder import RunFolder
from pocketclip.train.objective import Objective
from pocketclip.train.online import OnlineTeacher, teach
from pocketclip.train.record import describe_run
from pocketclip.train.start import freeze, starting_model

Evaluator = Callable[[nn.Module], Mapping[str, float]]


def train(
    config: TrainConfig,
    *,
    data: Path,
    out: Path,
    evaluate: Evaluator | None = None,
    track: TrackConfig | None = None,
    teachers: Sequence[OnlineTeacher] = (),
) -> Path:
    """Trains, or goes on training, and returns the checkpoint's path; under torchrun, with all its processes.

    Args:
        config: the run.
        data: a folder of shards; reinforced ones where `config.stream.replay`.
        out: the run's folder: config.json, metrics.jsonl, events/, dropped.jsonl where there is something to list,
            states/ while it runs, checkpoint.safetensors at its end.
        evaluate: called by the loop with a model in evaluation mode.
        track: where curves go besides metrics.jsonl; None for nowhere.
        teachers: those of `config.online`, made ready.

    Raises:
        ValueError: the folder holds another run; shards and recipe do not fit; training has diverged.
        FileNotFoundError: there are no such data, or no such checkpoint to begin with.
        StoppedError: SIGTERM came; the same call goes on.
    """
    if [teacher.name for teacher in teachers] != [spec.name for spec in config.online]:
        raise ValueError(f"recipe {config.name}: the teachers must be those of config.online, in its order")
    start = starting_model(config) if config.start is not None else None
    digest = start.digest if start else None
    record = describe_run(config, data=data, start_digest=digest, teachers=teachers)
    folder = RunFolder(out, record)
    if folder.checkpoint.is_file():
        folder.clear()  # of a run killed between its checkpoint and its end
        return folder.checkpoint
    job = _Job(
        config=config,
        data=data,
        folder=folder,
        record=record,
        start=start or starting_model(config),  # random weights are drawn only for a run that is not done
        teachers=teachers,
        evaluate=evaluate,
        track=track,
    )
    with joined_ranks(config.device) as ranks:
        _train(replace(job, config=config.shared_out(ranks.size)), ranks=ranks)
        ranks.wait()
    return folder.checkpoint


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Everything about a run that is not done."""

    config: TrainConfig
    data: Path
    folder: RunFolder
    record: dict[str, Any]
    start: Loaded
    teachers: Sequence[OnlineTeacher]
    evaluate: Evaluator | None
    track: TrackConfig | None


def _train(job: _Job, *, ranks: Ranks) -> None:
    config, folder = job.config, job.folder
    state = folder.latest_state()
    device = f"cuda:{ranks.local_rank}" if config.device == "cuda" else config.device
    model = job.start.to(device).model
    model.set_gradient_checkpointing(config.gradient_checkpointing)
    captioning_weight = config.objective.captioning_weight
    check_captioner(model, captioning_weight=captioning_weight, name=config.name)
    objective = (CaptionerObjective if captioning_weight > 0 else Objective)(
        config.objective,
        preprocess=job.start.config.preprocess,
        device=config.device,
        ranks=ranks,
        frozen=freeze(model, config.freeze),
        cut_texts=_is_causal(job.start.config.model.text),
    )
    with ExitStack() as stack:
        stream = stack.enter_context(_stream(job, state=state, ranks=ranks))
        hooks = Hooks(save=_nowhere, record=_nowhere, evaluate=job.evaluate, label=config.name, units=_units)
        if ranks.is_first:
            folder.claim()  # only now: shards that do not fit leave the folder free
            step = state["step"] if state else 0
            hooks = replace(
                hooks,
                save=_keeper(stream, folder=folder, keep=config.loop.keep_states, stack=stack),
                record=_recorder(folder, record=job.record, track=job.track, step=step, stack=stack),
                keep_best=lambda best: _save(folder.best, best, job=job),
            )
        weights = fit(
            model.train(),
            objective=objective,
            batches=teach(_listing_dropped(stream, folder=folder), job.teachers),
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
        job.record["dropped"] = [asdict(dropped) for dropped in folder.dropped()]
        if folder.best.is_file():
            kept = load(folder.best)
        else:
            on_cpu = {name: value.cpu() for name, value in weights.items()}
            kept = assemble(on_cpu, config=job.start.config, tokenizer=job.start.tokenizer)
        _save(folder.checkpoint, kept.model, job=job)
        folder.clear()


def _stream(job: _Job, *, state: State | None, ranks: Ranks) -> Stream:
    size = job.start.config.preprocess.size
    return Stream(
        split_shards(job.data, job.config.split),
        config=replace(job.config.stream, image_px=size),
        tokenizer=job.start.tokenizer,
        position=Position(*state["position"]) if state else None,
        rank=ranks.rank,
        num_ranks=ranks.size,
        extra_px=sorted({teacher.image_px for teacher in job.teachers}),
    )


def _is_causal(text: object) -> bool:
    """Whether nothing after the end of a text is seen; a hybrid tower sees all."""
    return getattr(text, "causal", False)


def _units(model: nn.Module) -> list[nn.Module]:
    """The blocks of both towers and of a decoder: every tower and stage calls them so."""
    names = ("blocks", "looking")
    lists = [part for module in model.modules() for name, part in module.named_children() if name in names]
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


def _save(path: Path, model: nn.Module, *, job: _Job) -> None:
    config = replace(job.start.config, run=job.record)
    save(path, cast("Any", model), config=config, tokenizer=job.start.tokenizer)


def _nowhere(_: object) -> None:
    """What the processes but the first save and record."""


def _num_samples(batch: Batch) -> int:
    return len(batch.keys)
