"""OpenVINO's own format: converted from ONNX; transformers are quantised by NNCF.

NNCF wrecks FastViT: by default (mean cosine 0.93), and in its transformer mode with the same layers left out it is
still six times as far off as ONNX Runtime's calibration. So networks of convolutions come quantised from there, and
OpenVINO runs their int8 products as its own. A text tower is NNCF's, in that mode, which smooths activations into
weights.
"""

from __future__ import annotations

import io
import logging
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.export.quantise import TABLE_BLOCK, is_convolutional, quantise
from pocketclip.export.towers import TowerRequest, WrittenTower
from pocketclip.runtime.openvino_tower import OpenVinoTower
from pocketclip.runtime.tower import Tower


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.xml and ROLE.bin."""
    settings: dict[str, JsonValue] = {"opset": request.opset, "openvino": openvino.__version__}
    converts_int8 = request.precision == "int8" and is_convolutional(request.tower)
    if converts_int8:
        with tempfile.TemporaryDirectory(dir=request.folder, prefix=".quantise-") as scratch:
            path = Path(scratch) / "int8.onnx"
            settings["float32_layers"] = list(quantise(request, path, rounds_outputs=False))
            model = openvino.convert_model(str(path))
    else:
        model = openvino.convert_model(str(request.plain()))
    if request.role == "text" and request.has_small_table:
        model = _four_bit_table(model)
        settings["table"] = "int4"
    if request.precision == "int8" and not converts_int8:
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
    there = {operation.get_friendly_name() for operation in model.get_ops()}
    ignored = [name for name in request.held_back if name in there]
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
    return _compress(quantised), ignored  # what is left: the token table


def _compress(model: openvino.Model) -> openvino.Model:
    nncf = _nncf()
    with redirect_stdout(io.StringIO()):
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)


def _four_bit_table(model: openvino.Model) -> openvino.Model:
    """The largest table that is looked up, in 4 bits; everything else as it was."""
    nncf = _nncf()
    products = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "MatMul"]
    with redirect_stdout(io.StringIO()):
        return nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=TABLE_BLOCK,
            all_layers=True,
            ignored_scope=nncf.IgnoredScope(names=products, validate=False),
        )


def _nncf() -> Any:  # noqa: ANN401 - a package
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf
