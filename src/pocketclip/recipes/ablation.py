"""The ablations of the paper's tables, small: one student, one recipe a variant, each a change of one thing.

    .venv/bin/python benchmarks/ablation.py FOLDER          data, teachers, all students, tables and figures
    pocketclip train ablation.reinforced --data FOLDER/reinforced --out RUN         one of them

What cannot be said in a recipe is said by the shards that it is given: which teachers, at which logit scales, how many
views (`benchmarks/ablation.py` takes them out of one reinforced folder). Hardware: one CPU core, a minute and a half a
student. Results: docs/benchmarks.md. Every recipe has a debug twin, `ablation.debug_*`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig
from pocketclip.recipes import emoji
from pocketclip.reinforce import ReinforceConfig
from pocketclip.train import ObjectiveConfig, TrainConfig

NUM_STEPS = 200
BATCH_SIZE = 128
NUM_VIEWS = 30
WARMUP_SHARE = 4  # one step in four, however short the run
CAPTIONER = "parts"


def plain(*, seed: int = 0) -> TrainConfig:
    """The student by CLIP's loss alone: lambda 0."""
    return TrainConfig(
        name="ablation.plain",
        variant="pocketclip_tiny",
        seed=seed,
        context_length=22,  # 99 captions in 100 are no longer
        stream=StreamConfig(batch_size=BATCH_SIZE, augment=emoji.VIEWS, seed=seed, cache_mb=256),
        optim=OptimConfig(lr_peak=2e-3, warmup_steps=NUM_STEPS // WARMUP_SHARE),
        loop=LoopConfig(num_steps=NUM_STEPS, evaluate_every=0, save_every=100),
    )


def reinforced(*, seed: int = 0) -> TrainConfig:
    """The same on reinforced shards, lambda 0.7: what every other variant is compared with."""
    return _distilled("reinforced", 0.7, seed=seed)


def lambda_half(*, seed: int = 0) -> TrainConfig:
    """Lambda 0.5: both losses alike."""
    return _distilled("lambda_half", 0.5, seed=seed)


def lambda_one(*, seed: int = 0) -> TrainConfig:
    """Lambda 1, the paper's: distillation alone."""
    return _distilled("lambda_one", 1.0, seed=seed)


def synthetic(*, seed: int = 0) -> TrainConfig:
    """Synthetic captions only."""
    return _captioned("synthetic", caption_weight=0.0, seed=seed)


def both(*, seed: int = 0) -> TrainConfig:
    """Ground-truth and synthetic captions, as the paper has it: the text tower reads both of each sample."""
    return _captioned("both", caption_weight=1.0, seed=seed)


def shortened(run: TrainConfig, *, num_steps: int) -> TrainConfig:
    """The run complete in fewer steps, its schedule with it: a point of a curve over samples."""
    return replace(
        run,
        optim=replace(run.optim, warmup_steps=num_steps // WARMUP_SHARE),
        loop=replace(run.loop, num_steps=num_steps),
    )


def reinforcement(teachers: dict[str, Path]) -> ReinforceConfig:
    """The demo's, with as many views as the paper's largest number of augmentations."""
    return replace(emoji.reinforcement(teachers), num_views=NUM_VIEWS)


def _distilled(name: str, distill_weight: float, *, seed: int) -> TrainConfig:
    run = plain(seed=seed)
    return replace(
        run,
        name=f"ablation.{name}",
        stream=replace(run.stream, replay=True),
        objective=ObjectiveConfig(distill_weight=distill_weight),
    )


def _captioned(name: str, *, caption_weight: float, seed: int) -> TrainConfig:
    run = reinforced(seed=seed)
    return replace(
        run,
        name=f"ablation.{name}",
        stream=replace(run.stream, synthetic=CAPTIONER),
        objective=replace(run.objective, caption_weight=caption_weight, synthetic_weight=1.0),
    )
