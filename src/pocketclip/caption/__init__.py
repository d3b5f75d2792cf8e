"""Captioning pictures, and how good the captions are."""

from __future__ import annotations

from pocketclip.caption.clip_score import ClipScorer
from pocketclip.caption.config import CaptionConfig
from pocketclip.caption.run import Captioned, caption
from pocketclip.caption.scores import CaptionScores, score_captions, scorers
from pocketclip.caption.sheet import caption_sheet
from pocketclip.caption.source import Picture, read_pictures

__all__ = [
    "CaptionConfig",
    "CaptionScores",
    "Captioned",
    "ClipScorer",
    "Picture",
    "caption",
    "caption_sheet",
    "read_pictures",
    "score_captions",
    "scorers",
]
