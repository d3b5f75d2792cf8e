"""Reinforced folders in the layouts that others published and their tools read."""

from __future__ import annotations

from pocketclip.publish.run import PublishConfig, PublishReport, publish

__all__ = ["PublishConfig", "PublishReport", "publish"]
