"""Filtering networks (Data Filtering Networks, arXiv 2309.17425): CLIP trained on little, but clean, to choose more.

    torchrun --nproc-per-node 8 -m pocketclip train dfn.b --data CC27M --out dfn
    pocketclip score POOL SCORES --teacher dfn=dfn/checkpoint.safetensors --engine ray
    pocketclip filter SCORES DFN --top score/dfn=15%
    pocketclip train mobileclip2.ablation_plain --data DFN --out student

What the paper found: how good a network is at a task does not say how good it is at filtering for it; a network with
lower ImageNet accuracy, trained on cleaner pairs, chooses the better training set. Its published network for public
data is a ViT-B/32 that saw 1.28 billion samples of Conceptual Captions 12M and 3M and Shutterstock 15M. With such
networks 2 billion pairs were chosen from a pool of 12.8 billion (DFN-2B) and 5 billion from 43 billion (DFN-5B); a
ViT-H trained on the latter reaches 84.4% zero-shot on ImageNet.

`dfn.b` keeps the number of samples and takes MobileCLIP2-B's towers (ViT-B/16), the nearest of the family's. Its batch,
learning rate and warm-up are those of DataComp's large scale (1.28 billion samples), not the paper's: unverified here.
`dfn.b_finetune` goes on from it on captions of the highest quality, as the paper's best networks did. Hardware: 8 GPUs.
None of these runs was made with this code. Every recipe has a debug twin, `dfn.debug_*`.

    pocketclip train dfn.emoji_pretrain --data POOL --out start
    pocketclip train dfn.emoji --data CLEAN --start start/checkpoint.safetensors --out network

The two emoji recipes take a quarter of an hour on a CPU core. What the network does to shuffled captions:
docs/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import replace

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig
from pocketclip.recipes.emoji import student_plain
from pocketclip.train import TrainConfig

NUM_SAMPLES = 1_280_000_000
BATCH_SIZE = 8192
EMOJI_STEPS, EMOJI_TUNING_STEPS = 400, 1200


def b() -> TrainConfig:
    """A filtering network from scratch: MobileCLIP2-B, 1.28 billion samples of clean pairs."""
    return TrainConfig(
        name="dfn.b",
        variant="mobileclip2_b",
        global_batch=BATCH_SIZE,
        gradient_checkpointing=True,
        stream=StreamConfig(
            batch_size=512,
            augment=AugmentSpec(scale=(0.9, 1.0), flip=0.0, rand_augment=0.0),
            resample=True,
            num_workers=8,
        ),
        optim=OptimConfig(lr_peak=5e-4, lr_floor=0.0, warmup_steps=500, betas=(0.9, 0.98)),
        loop=LoopConfig(
            num_steps=NUM_SAMPLES // BATCH_SIZE,
            log_every=20,
            evaluate_every=2000,
            save_every=1000,
            keep_states=2,
            precision="bf16",
        ),
        device="cuda",
    )


def b_finetune() -> TrainConfig:
    """The same network, tuned on captions of the highest quality: --start DFN/checkpoint.safetensors."""
    scratch = b()
    return replace(
        scratch,
        name="dfn.b_finetune",
        optim=replace(scratch.optim, lr_peak=1e-5, warmup_steps=200),
        loop=replace(scratch.loop, num_steps=2000, evaluate_every=200, save_every=200),
    )


def emoji_pretrain(*, seed: int = 0) -> TrainConfig:
    """The demo's student on an emoji pool as it is, wrong captions and all: the words and shapes that occur."""
    student = student_plain(seed=seed)
    return replace(
        student,
        name="dfn.emoji_pretrain",
        loop=replace(student.loop, num_steps=EMOJI_STEPS, evaluate_every=0),
    )


def emoji(*, seed: int = 0) -> TrainConfig:
    """A filtering network for the emoji: tuned on a clean part, --start PRETRAINED/checkpoint.safetensors."""
    pretrained = emoji_pretrain(seed=seed)
    return replace(
        pretrained,
        name="dfn.emoji",
        optim=replace(pretrained.optim, lr_peak=1.5e-3, warmup_steps=30),
        loop=replace(pretrained.loop, num_steps=EMOJI_TUNING_STEPS),
    )
