"""Training mechanics: optimizer, schedule, loop, records."""

from __future__ import annotations

from pocketclip.fit.journal import Journal, read_journal
from pocketclip.fit.loop import Hooks, LoopConfig, State, fit
from pocketclip.fit.optim import OptimConfig, WeightAverage, make_adamw
from pocketclip.fit.schedule import cosine

__all__ = [
    "Hooks",
    "Journal",
    "LoopConfig",
    "OptimConfig",
    "State",
    "WeightAverage",
    "cosine",
    "fit",
    "make_adamw",
    "read_journal",
]
