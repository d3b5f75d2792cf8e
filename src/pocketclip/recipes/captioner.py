"""Captioners: CoCa pre-trained on web pairs, then fine-tuned on good captions.

MobileCLIP2 (arXiv 2508.20691), sections 2.4 and 2.5, Table 17.

    pocketclip pack captions_train2017.json coco38k/ --pictures train2017/ --licences permissive
    torchrun --nnodes 16 --nproc-per-node 8 -m pocketclip train captioner.pretrain --data DFN-2B --out pretrained
    torchrun --nproc-per-node 8 -m pocketclip train captioner.finetune --data coco38k --out tuned
    torchrun --nproc-per-node 8 -m pocketclip train captioner.finetune_255 --data docci --out tuned --start pretrained
    pocketclip reinforce DFN-2B DFNDR-2B --captioner coco38k=tuned ...

Hardware: pre-training is one for a hundred or more accelerators, fine-tuning for eight; with fewer the same command
makes the same step in more parts (`global_batch`). Time: `pocketclip train --list` estimates GPU-hours. Expected: what
Table 6 gives a student that is trained on their captions (zero-shot top-1 on ImageNet-1k, Flickr30k, mean of 38
sets): DFN-2B alone 65.9, 68.7, 55.9; then MSCOCO-38k 65.9, 75.4, 56.5; then DOCCI 66.3, 72.6, 57.3. None of these
runs was made with this code. `captioner.emoji_*` take minutes on one core; docs/benchmarks.md has what came of them.
Every recipe has a debug twin, `captioner.debug_*`.

Where the figures are from. Read in transcriptions of the paper: the architecture (CoCa, ViT-L/14), DFN-2B and 13
billion samples for pre-training, 12 million samples and the same loss for fine-tuning, contexts of 77 and 255, the
sets. From CoCa's own paper: the weights 1 and 2. Table 17 itself was not found, so unverified: every batch, learning
rate, warm-up, weight decay, beta, and the views. Pre-training has Table 16's (batch 65,536, peak 1e-3, warm-up 10,000,
weight decay 0.2); fine-tuning open_clip's advice for CoCa (peak 1e-5, warm-up 1,000, weight decay 0.1) at a batch of
1,024. The texts of the published models have one token less than their context, which counts a class token.
"""

from __future__ import annotations

from dataclasses import replace

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig
from pocketclip.train import ObjectiveConfig, TrainConfig

COCA = ObjectiveConfig(contrastive_weight=1.0, captioning_weight=2.0)
# Nearly the whole picture, unturned: a caption speaks of all of it, and of left and right.
WHOLE = AugmentSpec(scale=(0.9, 1.0), rand_augment=0.0)
PRETRAINED = "hf-hub:apple/mobileclip2_coca_dfn2b_s13b_context77"
EMOJI_PRETRAINED = "emoji-pretrained"


def pretrain() -> TrainConfig:
    """CoCa-ViT-L/14 on DFN-2B: 200,000 steps of 65,536, 13 billion samples (Table 17, left)."""
    return TrainConfig(
        name="captioner.pretrain",
        variant="coca_vit_l_14",
        global_batch=65_536,
        gradient_checkpointing=True,
        stream=StreamConfig(batch_size=256, augment=WHOLE, resample=True, num_workers=8),
        objective=COCA,
        optim=OptimConfig(lr_peak=1e-3, lr_floor=0.0, warmup_steps=10_000, weight_decay=0.2),
        loop=LoopConfig(
            num_steps=200_000,
            log_every=20,
            evaluate_every=2000,
            save_every=1000,
            keep_states=2,
            precision="bf16",
        ),
        device="cuda",
    )


def finetune() -> TrainConfig:
    """The pre-trained CoCa on a small set of good captions: 12 million samples, context 77 (Table 17, right)."""
    run = pretrain()
    return replace(
        run,
        name="captioner.finetune",
        start=PRETRAINED,
        global_batch=1024,
        stream=replace(run.stream, batch_size=128, resample=False),
        optim=OptimConfig(lr_peak=1e-5, lr_floor=0.0, warmup_steps=1000, weight_decay=0.1),
        loop=replace(run.loop, num_steps=11_719, evaluate_every=1000, save_every=500),
    )


def finetune_255() -> TrainConfig:
    """The same for long captions: 255 tokens, positions interpolated (Table 17, right)."""
    return replace(finetune(), name="captioner.finetune_255", context_length=255)


def emoji_pretrain(*, seed: int = 0) -> TrainConfig:
    """A tiny captioner on captions of emoji: 600 steps of 64."""
    return TrainConfig(
        name="captioner.emoji_pretrain",
        variant="pocketclip_tiny_captioner",
        seed=seed,
        stream=StreamConfig(batch_size=64, augment=replace(WHOLE, scale=(0.7, 1.0)), seed=seed, cache_mb=256),
        objective=COCA,
        optim=OptimConfig(lr_peak=2e-3, warmup_steps=50),
        loop=LoopConfig(num_steps=600, save_every=100),
    )


def emoji_finetune(*, seed: int = 0) -> TrainConfig:
    """The same captioner on a small clean set: 100 steps of 64 at an eighth of the learning rate."""
    run = emoji_pretrain(seed=seed)
    return replace(
        run,
        name="captioner.emoji_finetune",
        start=EMOJI_PRETRAINED,
        optim=replace(run.optim, lr_peak=2.5e-4, warmup_steps=10),
        loop=replace(run.loop, num_steps=100),
    )
