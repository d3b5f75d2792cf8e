"""A run with evaluation during training: the recipe hands the evaluator to the loop."""

from __future__ import annotations

from pathlib import Path

from pocketclip.checkpoint import variant_config
from pocketclip.data.tokenize import Tokenizer
from pocketclip.evaluate import make_evaluator
from pocketclip.train import TrainConfig, train


def train_recipe(config: TrainConfig, *, data: Path, out: Path, validation: Path | None) -> Path:
    """Trains and returns the checkpoint's path.

    Args:
        config: the run.
        data: folder of shards, reinforced ones for a recipe that replays.
        out: the run's folder.
        validation: packed folder whose validation split is evaluated as the run goes, or None.
    """
    evaluator = None
    if validation:
        start = variant_config(config.variant)
        evaluator = make_evaluator(
            validation, preprocess=start.preprocess, tokenize=Tokenizer(start.tokenizer)
        )
    return train(config, data=data, out=out, evaluate=evaluator)
