"""Dataset reinforcement: embeddings of a teacher ensemble on replayable views, computed once, kept in the shards."""

from __future__ import annotations

from pocketclip.reinforce.run import ReinforceConfig, reinforce
from pocketclip.reinforce.shard import ShardRequest, reinforce_shard
from pocketclip.reinforce.teacher import CheckpointTeacher, Teacher, TeacherSpec

__all__ = [
    "CheckpointTeacher",
    "ReinforceConfig",
    "ShardRequest",
    "Teacher",
    "TeacherSpec",
    "reinforce",
    "reinforce_shard",
]
