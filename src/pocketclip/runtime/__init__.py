"""Runtime: run an exported model without torch."""

from __future__ import annotations

from pocketclip.runtime.manifest import ExportedFile, Manifest
from pocketclip.runtime.session import DEFAULT_TEMPLATES, ExportedModel

__all__ = ["DEFAULT_TEMPLATES", "ExportedFile", "ExportedModel", "Manifest"]
