"""Shards are what they say: every sample of every shard looked into, every defect listed."""

from __future__ import annotations

from pocketclip.verify.defect import Defect
from pocketclip.verify.run import VerifyConfig, VerifyReport, verify

__all__ = ["Defect", "VerifyConfig", "VerifyReport", "verify"]
