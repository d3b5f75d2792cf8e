"""Samples as a person looks at them: a contact sheet with captions, views and the teachers' opinions, and a summary."""

from __future__ import annotations

from pocketclip.inspect.run import InspectConfig, inspect
from pocketclip.inspect.summary import Summary

__all__ = ["InspectConfig", "Summary", "inspect"]
