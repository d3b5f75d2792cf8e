"""ONNX: traced from torch, quantised by ONNX Runtime's own tools.

int8 of convolutions is static and per channel, with depthwise convolutions, stem, head and gates left in float32;
dynamic int8 is useless for them. int8 of a transformer is dynamic.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.export.half import make_half
from pocketclip.export.onnx_graph import trace
from pocketclip.export.towers import INPUT_NAMES, TowerRequest, WrittenTower
from pocketclip.runtime.onnx_tower import OnnxTower
from pocketclip.runtime.tower import Tower

_QUANTISED = ("Conv", "MatMul", "Gemm")


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.onnx."""
    name = f"{request.role}.onnx"
    settings: dict[str, JsonValue] = {"opset": request.opset}
    target = request.folder / name
    if request.precision == "fp16":
        settings["float32_layers"] = list(make_half(request))
        trace(
            request.tower, request.example, target, input_name=INPUT_NAMES[request.role], opset=request.opset
        )
        return WrittenTower(files={request.role: name}, settings=settings)
    if request.precision == "fp32":
        shutil.copyfile(request.plain(), target)
        return WrittenTower(files={request.role: name}, settings=settings)
    with tempfile.TemporaryDirectory(dir=request.folder, prefix=".quantise-") as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # it advises what is done here
        try:
            quant_pre_process(
                str(request.plain()), str(prepared), skip_symbolic_shape=True, skip_optimization=True
            )
            held_back = _quantise(request, prepared, target)
        finally:
            logging.getLogger().setLevel(level)
    return WrittenTower(files={request.role: name}, settings={**settings, "float32_layers": list(held_back)})


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On ONNX Runtime's CPU provider."""
    del precision
    return OnnxTower(path)


class _Feed(CalibrationDataReader):
    """Calibration inputs, one at a time."""

    def __init__(self, name: str, inputs: np.ndarray) -> None:
        self._rows: Iterator[dict[str, np.ndarray]] = iter([{name: row[None]} for row in inputs])

    def get_next(self) -> dict[str, np.ndarray] | None:  # ty: ignore[incompatible-method-override]
        """The next one; None at the end."""
        return next(self._rows, None)


def _quantise(request: TowerRequest, prepared: Path, target: Path) -> list[str]:
    """Quantises, and returns the nodes that stayed in float32 though their kind is quantised."""
    model = onnx.load(prepared)
    if not any(node.op_type == "Conv" for node in model.graph.node):
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(request.held_back),
        )
        return list(request.held_back)
    assert len(request.calibration), "int8 of convolutions is calibrated"
    excluded = [*_delicate(model), *request.held_back]
    quantize_static(
        str(prepared),
        str(target),
        _Feed(INPUT_NAMES[request.role], request.calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTISED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
        calibrate_method=CalibrationMethod.Percentile,
        calibration_providers=["CPUExecutionProvider"],
        extra_options={"CalibPercentile": 99.995},
    )
    return excluded


def _delicate(model: onnx.ModelProto) -> list[str]:
    """Names of depthwise convolutions, and of what int8 hurts most for the least time: the stem, the head, gates."""
    names = []
    for node in model.graph.node:
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        is_delicate = group > 1 or node.name.startswith(("stem.", "head")) or ".squeeze." in node.name
        if node.op_type in _QUANTISED and is_delicate:
            names.append(node.name)
    return names
