"""The learning rate as a function of the step."""

from __future__ import annotations

import math


def cosine(step: int, *, num_steps: int, warmup_steps: int, lr_peak: float, lr_floor: float) -> float:
    """Linear warm-up to `lr_peak`, then half a cosine down to `lr_floor`, reached where the next step would be.

    Args:
        step: 0 for the first step.
        num_steps: of the whole run.
        warmup_steps: of the linear part.
        lr_peak: learning rate at its end.
        lr_floor: learning rate that step `num_steps` would have.
    """
    if step < warmup_steps:
        return lr_peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return lr_floor + (lr_peak - lr_floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
