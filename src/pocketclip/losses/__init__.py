"""Losses as pure functions of rows: no rank, no arguments' object, no optimizer."""

from __future__ import annotations

from pocketclip.losses.caption import caption_nll
from pocketclip.losses.contrastive import clip_loss, siglip_loss
from pocketclip.losses.distill import LossTerms, distill_loss, reinforced_loss
from pocketclip.losses.rows import PairRows, TeacherRows

__all__ = [
    "LossTerms",
    "PairRows",
    "TeacherRows",
    "caption_nll",
    "clip_loss",
    "distill_loss",
    "reinforced_loss",
    "siglip_loss",
]
