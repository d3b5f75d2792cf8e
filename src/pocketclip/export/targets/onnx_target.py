"""ONNX: traced from torch, quantised by ONNX Runtime's own tools."""

from __future__ import annotations

import shutil
from pathlib import Path

from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.export.half import make_half
from pocketclip.export.onnx_graph import trace
from pocketclip.export.quantise import quantise, quantise_table
from pocketclip.export.towers import INPUT_NAMES, TowerRequest, WrittenTower
from pocketclip.runtime.onnx_tower import OnnxTower
from pocketclip.runtime.tower import Tower


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.onnx."""
    target = request.folder / f"{request.role}.onnx"
    settings: dict[str, JsonValue] = {"opset": request.opset}
    if request.precision == "fp16":
        settings["float32_layers"] = list(make_half(request))
        trace(
            request.tower, request.example, target, input_name=INPUT_NAMES[request.role], opset=request.opset
        )
    elif request.precision == "fp32":
        shutil.copyfile(request.plain(), target)
    else:
        settings["float32_layers"] = list(quantise(request, target))
    if request.role == "text" and request.has_small_table:
        quantise_table(target)
        settings["table"] = "int4"
    return WrittenTower(files={request.role: target.name}, settings=settings)


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On ONNX Runtime's CPU provider."""
    del precision
    return OnnxTower(path)
