"""A page of static files: the ONNX of `onnx_target`, which onnxruntime-web runs.

Here the towers are judged on ONNX Runtime, as those of ONNX are; the page is then judged in a browser (`visit.py`).
"""

from __future__ import annotations

from pathlib import Path

from pocketclip.export.config import Precision
from pocketclip.export.targets import onnx_target
from pocketclip.export.towers import TowerRequest, WrittenTower
from pocketclip.runtime.tower import Tower


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.onnx."""
    return onnx_target.write(request)


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On ONNX Runtime's CPU provider."""
    return onnx_target.open_tower(path, precision=precision)
