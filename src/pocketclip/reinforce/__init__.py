"""Dataset reinforcement: embeddings of a teacher ensemble on replayable views, computed once, kept in the shards."""

from __future__ import annotations

from pocketclip.engine.config import EngineConfig
from pocketclip.engine.driver import FailedShardsError
from pocketclip.engine.units import OpenUnit
from pocketclip.reinforce.config import ReinforceConfig
from pocketclip.reinforce.plan import PlanConfig, plan_reinforcement
from pocketclip.reinforce.plan_sheet import CostSheet
from pocketclip.reinforce.run import reinforce
from pocketclip.reinforce.shard import ShardFacts, reinforce_shard
from pocketclip.reinforce.views import ShardRequest

__all__ = [
    "CostSheet",
    "EngineConfig",
    "FailedShardsError",
    "OpenUnit",
    "PlanConfig",
    "ReinforceConfig",
    "ShardFacts",
    "ShardRequest",
    "plan_reinforcement",
    "reinforce",
    "reinforce_shard",
]
