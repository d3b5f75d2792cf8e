"""Working through many units once each: a driver, its crew on this machine or on Ray, the books."""

from __future__ import annotations

from pocketclip.engine.config import EngineConfig
from pocketclip.engine.driver import FailedShardsError
from pocketclip.engine.job import Job
from pocketclip.engine.prefetch import ahead, mapped
from pocketclip.engine.run import run_task, settled_threads
from pocketclip.engine.task import Facts, Maker, Tally, Task, Verb
from pocketclip.engine.units import Item, OpenUnit, Plan, Unit, open_unit, plan_units

__all__ = [
    "EngineConfig",
    "Facts",
    "FailedShardsError",
    "Item",
    "Job",
    "Maker",
    "OpenUnit",
    "Plan",
    "Tally",
    "Task",
    "Unit",
    "Verb",
    "ahead",
    "mapped",
    "open_unit",
    "plan_units",
    "run_task",
    "settled_threads",
]
