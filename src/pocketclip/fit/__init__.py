"""Training mechanics: optimizer, schedule, processes, loop, records."""

from __future__ import annotations

from pocketclip.fit.journal import Journal, read_journal
from pocketclip.fit.loop import Hooks, LoopConfig, StoppedError, fit
from pocketclip.fit.optim import OptimConfig, WeightAverage, make_adamw
from pocketclip.fit.ranks import Ranks, gather_rows, joined_ranks, share_rows
from pocketclip.fit.saver import Saver, State, saved_states
from pocketclip.fit.schedule import cosine
from pocketclip.fit.step import Objective
from pocketclip.fit.trackers import TrackConfig, open_trackers

__all__ = [
    "Hooks",
    "Journal",
    "LoopConfig",
    "Objective",
    "OptimConfig",
    "Ranks",
    "Saver",
    "State",
    "StoppedError",
    "TrackConfig",
    "WeightAverage",
    "cosine",
    "fit",
    "gather_rows",
    "joined_ranks",
    "make_adamw",
    "open_trackers",
    "read_journal",
    "saved_states",
    "share_rows",
]
