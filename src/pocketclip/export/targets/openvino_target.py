"""OpenVINO's own format: converted from ONNX, quantised by NNCF.

NNCF's default wrecks FastViT. Its transformer mode, which smooths activations into weights, with depthwise convolutions
left out keeps it, and is faster: they gain nothing from int8.
"""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.export.towers import TowerRequest, WrittenTower
from pocketclip.runtime.openvino_tower import OpenVinoTower
from pocketclip.runtime.tower import Tower


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.xml and ROLE.bin."""
    model = openvino.convert_model(str(request.plain()))
    settings: dict[str, JsonValue] = {"opset": request.opset, "openvino": openvino.__version__}
    if request.precision == "int8":
        model, held_back = _quantise(model, request)
        settings["float32_layers"] = list(held_back)
    elif request.precision == "int8-weights":
        model = _compress(model)
    path = request.folder / f"{request.role}.xml"
    openvino.save_model(model, str(path), compress_to_fp16=request.precision == "fp16")
    return WrittenTower(
        files={request.role: path.name, f"{request.role}_weights": f"{request.role}.bin"}, settings=settings
    )


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On OpenVINO's CPU plugin."""
    return OpenVinoTower(path, arithmetic="bf16" if precision == "bf16" else "f32")


def _quantise(model: openvino.Model, request: TowerRequest) -> tuple[openvino.Model, list[str]]:
    assert len(request.calibration), "int8 is calibrated"
    nncf = _nncf()
    held_back = [*_delicate(model), *request.held_back]
    there = {operation.get_friendly_name() for operation in model.get_ops()}
    ignored = [name for name in held_back if name in there]
    rows = nncf.Dataset([np.ascontiguousarray(row[None]) for row in request.calibration])
    with redirect_stdout(io.StringIO()):  # a progress bar for every pass
        quantised = nncf.quantize(
            model,
            rows,
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(request.calibration),
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False) if ignored else None,
        )
    if request.role == "text":  # what is left: the token table
        quantised = _compress(quantised)
    return quantised, ignored


def _compress(model: openvino.Model) -> openvino.Model:
    nncf = _nncf()
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)


def _delicate(model: openvino.Model) -> list[str]:
    """Names of depthwise convolutions, and of what int8 hurts most for the least time: the stem, the head, gates."""
    return [
        operation.get_friendly_name()
        for operation in model.get_ops()
        if operation.get_type_name() == "GroupConvolution"
        or operation.get_friendly_name().startswith(("stem.", "head"))
        or ".squeeze." in operation.get_friendly_name()
    ]


def _nncf() -> Any:  # noqa: ANN401 - a package
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
