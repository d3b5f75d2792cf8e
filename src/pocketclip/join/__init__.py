"""Published reinforcements and their pictures, from wherever they are, become a reinforced folder."""

from __future__ import annotations

from pocketclip.join.config import DownloadConfig, JoinConfig, PictureSources
from pocketclip.join.run import JoinReport, join

__all__ = ["DownloadConfig", "JoinConfig", "JoinReport", "PictureSources", "join"]
