"""What is measured, and how often."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

TOWERS = ("image", "text")
TORCH_BACKENDS = ("eager", "folded", "compiled")
"""What runs a checkpoint: as trained, folded, folded and compiled; an exported model is run by `runtime`'s backends."""
PRECISIONS = ("fp32", "bf16", "fp16")


def _all_cores() -> tuple[int, ...]:
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """How models are measured.

    Attributes:
        towers: of "image" and "text".
        backends: names of `TORCH_BACKENDS` and of the runtime's; each model is run by those that can run it.
        precisions: of torch's weights and arithmetic; an exported model has its own.
        batch_sizes: pictures or texts at a time; 1 is latency, larger ones are throughput.
        threads: numbers of threads.
        sizes: sides of the pictures in pixels, a measurement each; empty for the model's own (Figure 3b sweeps them).
        rounds: turns of each contender.
        turn_seconds: a turn is one call, and further ones until so much time has gone by.
        warmup: calls of each contender before the first round.
        memory: measure the peak memory of each contender, in a process of its own.
        device: of torch.
    """

    towers: tuple[str, ...] = TOWERS
    backends: tuple[str, ...] = ("eager", "folded", "onnxruntime")
    precisions: tuple[str, ...] = ("fp32",)
    batch_sizes: tuple[int, ...] = (1, 16)
    threads: tuple[int, ...] = field(default_factory=_all_cores)
    sizes: tuple[int, ...] = ()
    rounds: int = 10
    turn_seconds: float = 0.3
    warmup: int = 2
    memory: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, known in (("towers", TOWERS), ("precisions", PRECISIONS)):
            wrong = [value for value in getattr(self, name) if value not in known]
            if wrong:
                raise ValueError(f"{name} has {', '.join(wrong)}: it may have {', '.join(known)}")
        for name in ("towers", "backends", "precisions", "batch_sizes", "threads"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must name at least one, each once; it is {list(values)}")
        numbers = (*self.batch_sizes, *self.threads, *self.sizes, self.rounds, self.warmup)
        if min(numbers) < 1:
            raise ValueError("batch_sizes, threads, sizes, rounds and warmup must be at least 1")
        if not self.turn_seconds >= 0:
            raise ValueError(f"turn_seconds is {self.turn_seconds}: it must not be negative")
        if self.sizes and self.towers == ("text",):
            raise ValueError("sizes are those of pictures: measure the image tower")
