"""A run with evaluation during training and teachers beside the student: the recipe hands both to the verb."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from torch import nn
from tyro.conf import arg

from pocketclip.evaluate import make_evaluator
from pocketclip.fit import TrackConfig
from pocketclip.teachers import TeacherSpec, build_teacher
from pocketclip.train import CHECKPOINT_FILE, OnlineSpec, OnlineTeacher, TrainConfig, starting_model, train


@dataclass(frozen=True, kw_only=True)
class RecipeRun:
    """What `pocketclip train RECIPE` is told.

    Attributes:
        data: folder of shards; reinforced ones for a reinforced recipe.
        out: the run's folder.
        validation: packed folder whose validation split is evaluated as the run goes.
        online_teacher: teachers that run beside the student; the recipe then needs no reinforced shards.
        track: where curves go besides metrics.jsonl.
        json: print JSON.
        config: the recipe's settings.
    """

    data: Path
    out: Path
    validation: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    online_teacher: Annotated[
        tuple[str, ...], arg(metavar="NAME=SOURCE[@SCALE] ...", help_behavior_hint="(default: none)")
    ] = ()
    track: TrackConfig = field(default_factory=TrackConfig)
    json: bool = False
    config: Annotated[TrainConfig, arg(name="")]


def taught_online(config: TrainConfig, teachers: Sequence[TeacherSpec]) -> TrainConfig:
    """The online form of a recipe: the same views and loss, with teachers that run beside the student.

    Raises:
        ValueError: the recipe gives distillation no weight.
    """
    online = tuple(
        OnlineSpec(name=spec.name, source=spec.source, logit_scale=spec.logit_scale) for spec in teachers
    )
    return replace(config, stream=replace(config.stream, replay=False), online=online)


def train_recipe(
    config: TrainConfig, *, data: Path, out: Path, validation: Path | None, track: TrackConfig | None = None
) -> Path:
    """Trains and returns the checkpoint's path; under torchrun, with all its processes.

    Args:
        config: the run.
        data: folder of shards, reinforced ones for a recipe that replays.
        out: the run's folder.
        validation: packed folder whose validation split is evaluated as the run goes, or None.
        track: where curves go besides metrics.jsonl; None for nowhere.
    """
    evaluator = None
    if validation and not (out / CHECKPOINT_FILE).is_file():
        evaluator = _not_here
        if os.environ.get("RANK", "0") == "0":  # the only process that evaluates
            start = starting_model(config)
            evaluator = make_evaluator(
                validation, preprocess=start.config.preprocess, tokenize=start.tokenizer
            )
    teachers = [_teacher(spec, config=config) for spec in config.online]
    return train(config, data=data, out=out, evaluate=evaluator, track=track, teachers=teachers)


def _teacher(spec: OnlineSpec, *, config: TrainConfig) -> OnlineTeacher:
    local = os.environ.get("LOCAL_RANK", "0")
    teacher = build_teacher(
        TeacherSpec(name=spec.name, source=spec.source, logit_scale=spec.logit_scale),
        device=f"cuda:{local}" if config.device == "cuda" else config.device,
        precision=config.loop.precision,
    )
    return OnlineTeacher(
        name=spec.name,
        image_px=teacher.image_px,
        logit_scale=teacher.record.logit_scale,
        digest=teacher.record.digest,
        encode_image=teacher.encode_image,
        encode_text=teacher.encode_text,
    )


def _not_here(_: nn.Module) -> Mapping[str, float]:
    raise AssertionError("only the first process evaluates")
