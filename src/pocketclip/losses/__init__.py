"""Losses as pure functions of rows: no rank, no arguments' object, no optimizer."""

from __future__ import annotations

from pocketclip.losses.contrastive import clip_loss
from pocketclip.losses.distill import TeacherRows, distill_loss

__all__ = ["TeacherRows", "clip_loss", "distill_loss"]
