"""Training on plain and on reinforced shards."""

from __future__ import annotations

from pocketclip.train.captioner import CaptionerObjective
from pocketclip.train.config import Freeze, OnlineSpec, TrainConfig
from pocketclip.train.folder import CHECKPOINT_FILE, METRICS_FILE
from pocketclip.train.objective import Objective, ObjectiveConfig
from pocketclip.train.online import OnlineTeacher
from pocketclip.train.run import train
from pocketclip.train.start import starting_model

__all__ = [
    "CHECKPOINT_FILE",
    "METRICS_FILE",
    "CaptionerObjective",
    "Freeze",
    "Objective",
    "ObjectiveConfig",
    "OnlineSpec",
    "OnlineTeacher",
    "TrainConfig",
    "starting_model",
    "train",
]
