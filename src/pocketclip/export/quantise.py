"""An ONNX tower in fewer bits, by ONNX Runtime's own tools; OpenVINO runs what comes out as well.

int8 of convolutions is static and per channel, with depthwise convolutions, stem, head and gates left in float32;
dynamic int8 is useless for them. int8 of a transformer is dynamic. A token table can be kept in 4 bits whatever the
rest is computed in: its rows are looked up, not multiplied.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, redirect_stdout
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
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from pocketclip.export.towers import INPUT_NAMES, TowerRequest

TABLE_BLOCK = 32  # numbers of a row of the token table that share a scale
_QUANTISED = ("Conv", "MatMul", "Gemm")


def quantise(request: TowerRequest, target: Path, *, rounds_outputs: bool = True) -> list[str]:
    """Writes a tower in int8.

    Args:
        request: with calibration inputs, where the tower is convolutional.
        target: the file.
        rounds_outputs: whether what a convolution gives is rounded too. ONNX Runtime computes in whole numbers only
            then; OpenVINO does so anyway, and without it the error halves.

    Returns:
        Nodes that stayed in float32 though their kind is quantised.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".quantise-") as scratch, _quiet():
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(
            str(request.plain()), str(prepared), skip_symbolic_shape=True, skip_optimization=True
        )
        model = onnx.load(prepared)
        if is_convolutional(request.tower):
            return _static(request, model, prepared, target, rounds_outputs=rounds_outputs)
        quantize_dynamic(
            str(prepared),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(request.held_back),
        )
        return list(request.held_back)


def is_convolutional(tower: nn.Module) -> bool:
    """Whether a tower is more of convolutions than of linear layers; a ViT with a convolutional stem is not."""
    kinds = [type(module) for module in tower.modules()]
    return kinds.count(nn.Conv2d) > kinds.count(nn.Linear)


def quantise_table(path: Path) -> None:
    """Puts the token table of a text tower into 4 bits, in blocks of `TABLE_BLOCK` numbers with a scale each.

    Args:
        path: ONNX file, changed in place.

    Raises:
        ValueError: it has no table of tokens.
    """
    model = onnx.load(path)
    if not any(node.op_type == "Gather" for node in model.graph.node):
        raise ValueError(f"{path.name} looks up no tokens: a 4-bit table is for text towers")
    config = DefaultWeightOnlyQuantConfig(
        block_size=TABLE_BLOCK, is_symmetric=False, op_types_to_quantize=("Gather",)
    )
    with _quiet():
        quantiser = MatMulNBitsQuantizer(model, algo_config=config)
        quantiser.process()
    done = quantiser.model
    onnx.save(done if isinstance(done, onnx.ModelProto) else done.model, path)


class _Feed(CalibrationDataReader):
    """Calibration inputs, one at a time."""

    def __init__(self, name: str, inputs: np.ndarray) -> None:
        self._rows: Iterator[dict[str, np.ndarray]] = iter([{name: row[None]} for row in inputs])

    def get_next(self) -> dict[str, np.ndarray] | None:  # ty: ignore[incompatible-method-override]
        """The next one; None at the end."""
        return next(self._rows, None)


def _static(
    request: TowerRequest, model: onnx.ModelProto, prepared: Path, target: Path, *, rounds_outputs: bool
) -> list[str]:
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
        extra_options={
            "CalibPercentile": 99.995,
            "OpTypesToExcludeOutputQuantization": [] if rounds_outputs else list(_QUANTISED),
        },
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


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without advice to do what is done here, and without what the calibration prints."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.getLogger().setLevel(level)
