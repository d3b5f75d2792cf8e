"""Export: checkpoint in, a folder that runs without torch out, published only when both agree."""

from __future__ import annotations

from pocketclip.export.config import ExportConfig
from pocketclip.export.parity import ParityError, ParityReport, TowerParity
from pocketclip.export.run import export

__all__ = ["ExportConfig", "ParityError", "ParityReport", "TowerParity", "export"]
