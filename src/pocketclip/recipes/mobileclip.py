"""MobileCLIP on DataCompDR-1B (arXiv 2311.17049), the first generation.

    pocketclip reinforce s3://DataComp-1B/ s3://DataCompDR-1B/ ...     once: `datacompdr`, two teachers, ten views
    torchrun --nnodes 16 --nproc-per-node 8 -m pocketclip train mobileclip.s2 --data DataCompDR-1B --out s2

Hardware: the released script asks for 16 machines of 8 GPUs. Time: `pocketclip train --list` estimates GPU-hours.
Expected, zero-shot top-1 on ImageNet-1k and the mean of 38 sets: S0 67.8 and 58.1, S1 72.6 and 61.3, S2 74.4 and 63.7,
B 76.8 and 65.2. None of these runs was made with this code. Every recipe has a debug twin, `mobileclip.debug_*`.

The figures are those of the released script for B (github.com/apple/ml-mobileclip, training/configs,
run_datacompdr1b.sh), which says of S0, S1 and S2 only that their loss weights are 0 and 1 rather than 0.25 and 0.75;
that their other figures are B's is unverified.
"""

from __future__ import annotations

from dataclasses import replace

from pocketclip.data.augment import AugmentSpec
from pocketclip.recipes.mobileclip2 import b as mobileclip2_b
from pocketclip.reinforce import ReinforceConfig
from pocketclip.teachers import TeacherSpec
from pocketclip.train import TrainConfig


def s0() -> TrainConfig:
    """MobileCLIP-S0 on DataCompDR-1B: 200,000 steps of 65,536."""
    return _script("s0", distill_weight=1.0)


def s1() -> TrainConfig:
    """MobileCLIP-S1 on DataCompDR-1B: 200,000 steps of 65,536."""
    return _script("s1", distill_weight=1.0)


def s2() -> TrainConfig:
    """MobileCLIP-S2 on DataCompDR-1B: 200,000 steps of 65,536."""
    return _script("s2", distill_weight=1.0)


def b() -> TrainConfig:
    """MobileCLIP-B on DataCompDR-1B: 200,000 steps of 65,536, a quarter of the loss from the pairs themselves."""
    return _script("b", distill_weight=0.75)


def datacompdr(*, num_views: int = 10) -> ReinforceConfig:
    """The teachers of DataCompDR: ten views of each picture for the billion, 30 for the 12 million."""
    return ReinforceConfig(
        teachers=(
            TeacherSpec(name="openai", source="open_clip:ViT-L-14/openai", logit_scale=100.0),
            TeacherSpec(
                name="datacomp_xl", source="open_clip:ViT-L-14/datacomp_xl_s13b_b90k", logit_scale=100.0
            ),
        ),
        num_views=num_views,
        augment=AugmentSpec(),
        device="cuda",
        precision="bf16",
    )


def _script(name: str, *, distill_weight: float) -> TrainConfig:
    run = mobileclip2_b()
    return replace(
        run,
        name=f"mobileclip.{name}",
        variant=f"mobileclip_{name}",
        objective=replace(run.objective, distill_weight=distill_weight),
        optim=replace(run.optim, warmup_steps=1_000, lr_floor=0.0),
        loop=replace(run.loop, average_decay=None),
    )
