"""Trains a model on plain or reinforced shards: one folder a run, which goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pocketclip.checkpoint import (
    Loaded,
    create,
    load_state,
    save,
    save_state,
    unstructure,
    variant_config,
)
from pocketclip.data.index import Dropped, read_index, split_shards
from pocketclip.data.publish import publish_file
from pocketclip.data.stream import Batch, Position, Stream, StreamConfig
from pocketclip.fit import Hooks, Journal, LoopConfig, OptimConfig, State, fit
from pocketclip.train.objective import Objective, ObjectiveConfig

CHECKPOINT_FILE = "checkpoint.safetensors"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
STATE_FILE = "state.safetensors"

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


def train(config: TrainConfig, *, data: Path, out: Path, evaluate: Evaluator | None = None) -> Path:
    """Trains, or goes on training, and returns the checkpoint's path.

    Args:
        config: the run.
        data: a folder of shards; reinforced ones where `config.stream.replay`.
        out: the run's folder: config.json, metrics.jsonl, state.safetensors while it runs, checkpoint.safetensors at
            its end.
        evaluate: called by the loop with a model in evaluation mode.

    Raises:
        ValueError: the folder holds another run; shards and recipe do not fit; the loss is not finite.
    """
    _check_size(config)
    checkpoint = out / CHECKPOINT_FILE
    record = _record(config, data=data)
    _check(out, record)
    if checkpoint.is_file():
        (out / STATE_FILE).unlink(missing_ok=True)  # of a run killed between its checkpoint and its end
        return checkpoint
    start = _initial(config)
    state = load_state(out / STATE_FILE) if (out / STATE_FILE).is_file() else None
    position = Position(*state["position"]) if state else Position()
    shards = split_shards(data, config.split)
    with Stream(shards, config=config.stream, tokenizer=start.tokenizer, position=position) as stream:
        _claim(out / CONFIG_FILE, record)  # only now: shards that do not fit leave the folder free
        stream.dropped.update(_dropped(state["dropped"]) if state else {})

        def keep(loop_state: State) -> None:
            place = (stream.position.epoch, stream.position.batch)
            dropped = [asdict(one) for one in stream.dropped.values()]
            save_state(out / STATE_FILE, {**loop_state, "position": place, "dropped": dropped})

        hooks = Hooks(
            save=keep,
            evaluate=evaluate,
            journal=Journal(out / METRICS_FILE, step=state["step"] if state else 0),
            label=config.name,
        )
        trained = fit(
            start.model.train(),
            loss=Objective(config.objective, preprocess=start.config.preprocess, device=config.device),
            batches=iter(stream),
            num_samples=_num_samples,
            optim=config.optim,
            loop=config.loop,
            hooks=hooks,
            state=state,
        )
        record["dropped"] = [asdict(dropped) for dropped in stream.dropped.values()]
    save(checkpoint, trained.cpu(), config=replace(start.config, run=record), tokenizer=start.tokenizer)
    (out / STATE_FILE).unlink(missing_ok=True)
    return checkpoint


def _check_size(config: TrainConfig) -> None:
    wanted = variant_config(config.variant).preprocess.size
    if config.stream.image_px != wanted:
        raise ValueError(
            f"recipe {config.name}: stream.image_px is {config.stream.image_px} but {config.variant} takes pictures of "
            f"{wanted} px: set stream.image_px to that"
        )


def _initial(config: TrainConfig) -> Loaded:
    torch.manual_seed(config.seed)
    return create(config.variant).to(config.device)


def _record(config: TrainConfig, *, data: Path) -> dict[str, Any]:
    """What the run's folder and its checkpoint say of it."""
    index = json.dumps(asdict(read_index(data)), sort_keys=True).encode()
    return {"config": unstructure(config), "data_sha256": hashlib.sha256(index).hexdigest()}


def _check(out: Path, record: Mapping[str, Any]) -> None:
    """Makes sure that the folder is this run's, or nobody's: a run that never took a step has no claim on it."""
    path = out / CONFIG_FILE
    if path.is_file() and path.read_text(encoding="utf-8") != _text(record) and _has_begun(out):
        raise ValueError(
            f"{out} holds a run of another configuration or other data ({path} differs): choose another folder, "
            "or delete this one"
        )


def _claim(path: Path, record: Mapping[str, Any]) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != _text(record):
        with publish_file(path) as file:
            file.write(_text(record).encode())


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def _has_begun(out: Path) -> bool:
    metrics = out / METRICS_FILE
    return (
        (out / CHECKPOINT_FILE).exists()
        or (out / STATE_FILE).exists()
        or (metrics.is_file() and metrics.stat().st_size > 0)
    )


def _dropped(saved: list[dict[str, str]]) -> dict[str, Dropped]:
    return {one["source"]: Dropped(**one) for one in saved}


def _num_samples(batch: Batch) -> int:
    return len(batch.keys)
