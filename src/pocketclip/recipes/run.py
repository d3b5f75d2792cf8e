"""A run with evaluation during training: the recipe hands the evaluator to the loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from pocketclip.checkpoint import variant_config
from pocketclip.data.tokenize import Tokenizer
from pocketclip.evaluate import make_evaluator
from pocketclip.train import CHECKPOINT_FILE, TrainConfig, train


@dataclass(frozen=True, kw_only=True)
class RecipeRun:
    """What `pocketclip train RECIPE` is told.

    Attributes:
        data: folder of shards; reinforced ones for a reinforced recipe.
        out: the run's folder.
        validation: packed folder whose validation split is evaluated as the run goes.
        json: print JSON.
        config: the recipe's settings.
    """

    data: Path
    out: Path
    validation: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    json: bool = False
    config: Annotated[TrainConfig, arg(name="")]


def train_recipe(config: TrainConfig, *, data: Path, out: Path, validation: Path | None) -> Path:
    """Trains and returns the checkpoint's path.

    Args:
        config: the run.
        data: folder of shards, reinforced ones for a recipe that replays.
        out: the run's folder.
        validation: packed folder whose validation split is evaluated as the run goes, or None.
    """
    evaluator = None
    if validation and not (out / CHECKPOINT_FILE).is_file():
        start = variant_config(config.variant)
        evaluator = make_evaluator(
            validation, preprocess=start.preprocess, tokenize=Tokenizer(start.tokenizer)
        )
    return train(config, data=data, out=out, evaluate=evaluator)
