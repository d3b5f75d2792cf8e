"""Dataset reinforcement: embeddings of a teacher ensemble on replayable views, computed once, kept in the shards."""

from __future__ import annotations

from pocketclip.reinforce.captioner import Captioner, CaptionerSpec, build_captioner
from pocketclip.reinforce.run import ReinforceConfig, reinforce
from pocketclip.reinforce.shard import ShardRequest, reinforce_shard
from pocketclip.reinforce.teacher import EncodeError, Precision, Teacher, TeacherSpec, build_teacher

__all__ = [
    "Captioner",
    "CaptionerSpec",
    "EncodeError",
    "Precision",
    "ReinforceConfig",
    "ShardRequest",
    "Teacher",
    "TeacherSpec",
    "build_captioner",
    "build_teacher",
    "reinforce",
    "reinforce_shard",
]
