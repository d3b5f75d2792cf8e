"""The emoji runs: two teachers from scratch, a student with and without reinforcement at equal steps.

    pocketclip pack emoji DATA
    pocketclip train emoji.teacher_conv --data DATA --out CONV
    pocketclip train emoji.teacher_vit --data DATA --out VIT
    pocketclip reinforce DATA REINFORCED --teacher CONV/checkpoint.safetensors VIT/checkpoint.safetensors
    pocketclip train emoji.student_plain --data DATA --out PLAIN
    pocketclip train emoji.student_reinforced --data REINFORCED --out STUDENT

Hardware: two CPU cores. Time and expected results: docs/benchmarks.md. `pocketclip demo OUT` is all of it in one
command. Every recipe has a debug twin of a few steps, `emoji.debug_*`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig
from pocketclip.reinforce import ReinforceConfig
from pocketclip.teachers import TeacherSpec
from pocketclip.train import ObjectiveConfig, TrainConfig

# An emoji fills its picture: crops as small as the published 8% would show nothing of what its caption says.
VIEWS = AugmentSpec(scale=(0.4, 1.0), flip=0.0)
TEACHER_STEPS = {"conv": 560, "vit": 460}
STUDENT_STEPS = 200
BATCH_SIZE = 128


def teacher_conv() -> TrainConfig:
    """The convolutional teacher: the student's family, wider."""
    return TrainConfig(
        name="emoji.teacher_conv",
        variant="pocketclip_tiny_teacher",
        seed=1,
        stream=StreamConfig(batch_size=BATCH_SIZE, augment=VIEWS, seed=1, cache_mb=256),
        optim=OptimConfig(lr_peak=2e-3, warmup_steps=50),
        loop=LoopConfig(num_steps=TEACHER_STEPS["conv"], evaluate_every=100),
    )


def teacher_vit() -> TrainConfig:
    """The transformer teacher: another architecture errs elsewhere."""
    conv = teacher_conv()
    return replace(
        conv,
        name="emoji.teacher_vit",
        variant="pocketclip_tiny_vit",
        seed=2,
        stream=replace(conv.stream, seed=2),
        loop=replace(conv.loop, num_steps=TEACHER_STEPS["vit"]),
    )


def student_plain(*, seed: int = 0) -> TrainConfig:
    """The student by CLIP's loss alone."""
    return TrainConfig(
        name="emoji.student_plain",
        variant="pocketclip_tiny",
        seed=seed,
        stream=StreamConfig(batch_size=BATCH_SIZE, augment=VIEWS, seed=seed, cache_mb=256),
        optim=OptimConfig(lr_peak=2e-3, warmup_steps=50),
        loop=LoopConfig(num_steps=STUDENT_STEPS, evaluate_every=50),
    )


def student_reinforced(*, seed: int = 0) -> TrainConfig:
    """The same student, steps and batches on reinforced shards."""
    plain = student_plain(seed=seed)
    return replace(
        plain,
        name="emoji.student_reinforced",
        stream=replace(plain.stream, replay=True),
        objective=ObjectiveConfig(distill_weight=0.7),
    )


def reinforcement(teachers: dict[str, Path]) -> ReinforceConfig:
    """Two teachers, eight views of each picture."""
    specs = tuple(TeacherSpec(name=name, source=str(path)) for name, path in sorted(teachers.items()))
    return ReinforceConfig(teachers=specs, num_views=8, augment=VIEWS)
