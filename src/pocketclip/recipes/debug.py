"""Debug twins: a recipe's every setting, at a size that two CPU cores finish in seconds."""

from __future__ import annotations

from dataclasses import replace

from pocketclip.models.variants import CAPTIONERS, variant
from pocketclip.models.vit import ViTConfig
from pocketclip.train import TrainConfig

_NUM_SAMPLES = 16  # of a step


def debug(config: TrainConfig) -> TrainConfig:
    """The same run with a tiny variant of the same kind, a few small steps, on the CPU in fp32."""
    room, name = config.name.split(".")
    shared = config.global_batch is not None
    return replace(
        config,
        name=f"{room}.debug_{name}",
        variant=_tiny(config.variant),
        start=None,
        device="cpu",
        global_batch=_NUM_SAMPLES if shared else None,
        stream=replace(
            config.stream,
            batch_size=_NUM_SAMPLES // 2 if shared else _NUM_SAMPLES,
            num_threads=1,
            num_workers=0,
        ),
        optim=replace(config.optim, warmup_steps=2),
        loop=replace(
            config.loop,
            num_steps=6,
            evaluate_every=3,
            save_every=2,
            log_every=1,
            precision="fp32",
            compile=False,
        ),
    )


def _tiny(name: str | None) -> str:
    """A variant that is already tiny, or the one whose image tower is of the same kind."""
    assert name is not None
    row = variant(name)
    if row.name.startswith("pocketclip_tiny"):
        return row.name
    is_vit = isinstance(row.model.image, ViTConfig)
    if row.name in CAPTIONERS:
        return "pocketclip_tiny_captioner_vit" if is_vit else "pocketclip_tiny_captioner"
    return "pocketclip_tiny_vit" if is_vit else "pocketclip_tiny"
