"""Training on plain and on reinforced shards."""

from __future__ import annotations

from pocketclip.train.folder import CHECKPOINT_FILE, METRICS_FILE
from pocketclip.train.objective import Objective, ObjectiveConfig
from pocketclip.train.run import TrainConfig, train

__all__ = ["CHECKPOINT_FILE", "METRICS_FILE", "Objective", "ObjectiveConfig", "TrainConfig", "train"]
