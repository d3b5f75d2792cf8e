"""Export: checkpoint in, a folder that runs without torch out, published only when both agree."""

from __future__ import annotations

from pocketclip.export.config import ALLOWED, PRECISIONS, Allowed, ExportConfig, Precision, Target
from pocketclip.export.pairs import Pairs, read_pairs, splits_for
from pocketclip.export.report import LayerDifference, ParityError, ParityReport, TowerParity
from pocketclip.export.run import Material, check, export
from pocketclip.export.table import ExportRow, export_all

__all__ = [
    "ALLOWED",
    "PRECISIONS",
    "Allowed",
    "ExportConfig",
    "ExportRow",
    "LayerDifference",
    "Material",
    "Pairs",
    "ParityError",
    "ParityReport",
    "Precision",
    "Target",
    "TowerParity",
    "check",
    "export",
    "export_all",
    "read_pairs",
    "splits_for",
]
