"""Trains a model on plain or reinforced shards: one folder a run, which goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pocketclip.checkpoint import CheckpointConfig, Loaded, create, load_state, save, save_state, unstructure
from pocketclip.data.index import read_index, split_shards
from pocketclip.data.publish import publish_file
from pocketclip.data.stream import Batch, Position, Stream, StreamConfig
from pocketclip.fit import Hooks, Journal, LoopConfig, OptimConfig, State, fit
from pocketclip.train.objective import Objective, ObjectiveConfig

CHECKPOINT_FILE = "checkpoint.safetensors"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
STATE_FILE = "state.pt"

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


def train(config: TrainConfig, *, data: Path, out: Path, evaluate: Evaluator | None = None) -> Path:
    """Trains, or goes on training, and returns the checkpoint's path.

    Args:
        config: the run.
        data: a folder of shards; reinforced ones where `config.stream.replay`.
        out: the run's folder: config.json, metrics.jsonl, state.pt while it runs, checkpoint.safetensors at its end.
        evaluate: called by the loop with a model in evaluation mode.

    Raises:
        ValueError: the folder holds another run; shards and recipe do not fit; the loss is not finite.
    """
    start = _initial(config)
    checkpoint = out / CHECKPOINT_FILE
    record = _record(config, data=data)
    _check(out / CONFIG_FILE, record)
    if checkpoint.is_file():
        return checkpoint
    state = load_state(out / STATE_FILE) if (out / STATE_FILE).is_file() else None
    position = Position(*state.pop("position")) if state else Position()
    shards = split_shards(data, config.split)
    with Stream(shards, config=config.stream, tokenizer=start.tokenizer, position=position) as stream:
        _claim(out / CONFIG_FILE, record)  # only now: shards that do not fit leave the folder free

        def keep(loop_state: State) -> None:
            place = (stream.position.epoch, stream.position.batch)
            save_state(out / STATE_FILE, {**loop_state, "position": place})

        hooks = Hooks(
            save=keep,
            evaluate=evaluate,
            journal=Journal(out / METRICS_FILE, step=state["step"] if state else 0),
            label=config.name,
        )
        trained = fit(
            start.model.train().to(config.device).to(memory_format=torch.channels_last),
            loss=Objective(config.objective, preprocess=start.config.preprocess, device=config.device),
            batches=iter(stream),
            num_samples=_num_samples,
            optim=config.optim,
            loop=config.loop,
            hooks=hooks,
            state=state,
        )
        record["dropped"] = [asdict(dropped) for dropped in stream.dropped.values()]
    described = CheckpointConfig(
        model=start.config.model,
        preprocess=start.config.preprocess,
        tokenizer=start.config.tokenizer,
        run=record,
    )
    save(checkpoint, trained.cpu(), config=described, tokenizer=start.tokenizer)
    (out / STATE_FILE).unlink(missing_ok=True)
    return checkpoint


def _initial(config: TrainConfig) -> Loaded:
    torch.manual_seed(config.seed)
    start = create(config.variant)
    if config.stream.image_px != start.config.preprocess.size:
        raise ValueError(
            f"recipe {config.name}: stream.image_px is {config.stream.image_px} but {config.variant} takes pictures of "
            f"{start.config.preprocess.size} px: set stream.image_px to that"
        )
    return start


def _record(config: TrainConfig, *, data: Path) -> dict[str, Any]:
    """What the run's folder and its checkpoint say of it."""
    index = json.dumps(asdict(read_index(data)), sort_keys=True).encode()
    return {"config": unstructure(config), "data_sha256": hashlib.sha256(index).hexdigest()}


def _check(path: Path, record: Mapping[str, Any]) -> None:
    """Makes sure that the folder of `path` is this run's, or nobody's."""
    if path.is_file() and path.read_text(encoding="utf-8") != _text(record):
        raise ValueError(
            f"{path.parent} holds a run of another configuration or other data ({path} differs): "
            "choose another folder, or delete this one"
        )


def _claim(path: Path, record: Mapping[str, Any]) -> None:
    if not path.is_file():
        with publish_file(path) as file:
            file.write(_text(record).encode())


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True) + "\n"


def _num_samples(batch: Batch) -> int:
    return len(batch.keys)
