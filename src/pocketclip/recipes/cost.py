"""What a run costs, estimated from its arithmetic.

A sample's forward pass is one picture and, for each kind of caption that counts, one text; multiply-accumulates are
counted as `models/count.py` counts them (`pocketclip describe`), with all branches. A backward pass is counted as two
forward ones, and gradient checkpointing as one forward pass more. Teachers, the loss and the data path are left out.

Assumed speeds: a GPU that sustains 200 TFLOP/s in bf16 (a fifth of an H100's peak; ViTs reach more, small
convolutional towers less), and two CPU cores that sustain 50 GFLOP/s in fp32 (the demo's runs, docs/benchmarks.md).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from pocketclip.checkpoint.blank import blank
from pocketclip.models.clip import ClipConfig
from pocketclip.models.variants import CAPTIONERS, variant
from pocketclip.models.vit import ViTConfig
from pocketclip.train import TrainConfig

GPU_FLOP_PER_S = 200e12
CPU_FLOP_PER_S = 50e9


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """An estimate.

    Attributes:
        num_samples: that the run sees, on one process where the recipe has no global batch.
        flop: additions and multiplications of all its steps.
        hours: of one GPU, or of two CPU cores, at the assumed speed.
        device: which of these: `cuda` or `cpu`.
    """

    num_samples: int
    flop: float
    hours: float
    device: str


def run_cost(config: TrainConfig) -> RunCost:
    """Estimates a run from its variant.

    Raises:
        ValueError: the recipe names no variant, only weights to begin with.
    """
    if config.variant is None:
        raise ValueError(
            f"recipe {config.name} names no variant: its cost depends on the checkpoint it starts from"
        )
    row = variant(config.variant)
    size = config.stream.image_px or row.image_px
    length = config.context_length or row.model.text.context_length
    sample = (
        _captioner_macs(row.model, image_px=size, length=length)
        if row.name in CAPTIONERS
        else _image_macs(row.model, image_px=size)
        + _num_captions(config) * _text_macs(row.model, length=length)
    )
    passes = 4 if config.gradient_checkpointing else 3
    num_samples = config.loop.num_steps * config.samples_per_step()
    flop = 2.0 * passes * num_samples * sample
    device = "cuda" if config.device == "cuda" else "cpu"
    speed = GPU_FLOP_PER_S if device == "cuda" else CPU_FLOP_PER_S
    return RunCost(num_samples=num_samples, flop=flop, hours=flop / speed / 3600, device=device)


def _num_captions(config: TrainConfig) -> int:
    """Kinds of caption that a student reads of every sample."""
    return (config.objective.caption_weight > 0.0) + (config.objective.synthetic_weight > 0.0)


def _captioner_macs(model: ClipConfig, *, image_px: int, length: int) -> int:
    """Multiply-accumulates of a picture and its caption, both decoders and the words' logits included."""
    image = replace(model.image, image_px=image_px) if isinstance(model.image, ViTConfig) else model.image
    sized = replace(model, image=image, text=replace(model.text, context_length=length))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        blank(sized).eval()(
            torch.empty(1, 3, image_px, image_px, device="meta"),
            torch.empty(1, length, dtype=torch.int64, device="meta"),
        )
    return counter.get_total_flops() // 2


def _image_macs(model: ClipConfig, *, image_px: int) -> int:
    """Multiply-accumulates of a picture."""
    image = replace(model.image, image_px=image_px) if isinstance(model.image, ViTConfig) else model.image
    return _macs(
        replace(model, image=image, text=_NO_TEXT), "image", (1, 3, image_px, image_px), torch.float32
    )


def _text_macs(model: ClipConfig, *, length: int) -> int:
    """Multiply-accumulates of a text."""
    text = replace(model.text, context_length=length)
    return _macs(replace(model, image=_NO_IMAGE, text=text), "text", (1, length), torch.int64)


# In the place of the tower that is not counted, so that equal towers are counted once.
_NO_IMAGE = variant("pocketclip_tiny").model.image
_NO_TEXT = variant("pocketclip_tiny").model.text


@functools.cache
def _macs(model: ClipConfig, tower: str, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        blank(model).eval().get_submodule(tower)(torch.empty(shape, dtype=dtype, device="meta"))
    return counter.get_total_flops() // 2
