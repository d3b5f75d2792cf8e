"""Where two graphs of one tower part: outputs of the same layers, run side by side.

The reference is a fresh float32 export of the checkpoint, so that both graphs have the same names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pocketclip.export.judge import Judge
from pocketclip.export.report import LayerDifference
from pocketclip.export.towers import INPUT_NAMES

_COMPARED = ("Conv", "MatMul", "Gemm", "LayerNormalization", "Gather", "Softmax", "Mul", "Add")
_OPSET = 20
_QUIET = 3


def compare_layers(
    judge: Judge, path: Path, *, role: str, inputs: np.ndarray, pixels: str
) -> tuple[LayerDifference, ...]:
    """Layers of an exported tower that add most error, worst first.

    Args:
        judge: has the checkpoint.
        path: .onnx, or OpenVINO's .xml, that an export of the checkpoint wrote.
        role: "image" or "text".
        inputs: uint8 pixels [N, H, W, 3] or tokens [N, L].
        pixels: what the exported image tower takes.
    """
    plain = judge.traced(role, pixels="float32", opset=_OPSET)
    graph = onnx.load(plain).graph
    layers = {
        node.output[0]: node for node in graph.node if node.op_type in _COMPARED and node.name[0] != "/"
    }
    normalised = (
        judge.loaded.config.preprocess.normalise(inputs.astype(np.uint8)) if role == "image" else inputs
    )
    expected = _onnx_values(plain, list(layers), INPUT_NAMES[role], normalised)
    fed = normalised if pixels == "float32" or role == "text" else inputs
    read = _onnx_values if path.suffix == ".onnx" else _openvino_values
    found = read(path, list(layers), INPUT_NAMES[role], fed)
    errors = {name: _error(found[name], expected[name]) for name in layers if name in found}
    before = _before(graph, set(errors))
    differences = [
        LayerDifference(
            tower=role,
            layer=layers[name].name,
            cosine=1 - error,
            own_error=error - max((errors[other] for other in before[name]), default=0.0),
        )
        for name, error in errors.items()
    ]
    return tuple(sorted(differences, key=lambda one: -one.own_error))


def _onnx_values(path: Path, names: list[str], input_name: str, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Values of an ONNX graph by name; names that it lacks are left out."""
    model = onnx.load(path)
    made = {name for node in model.graph.node for name in node.output}
    asked = [name for name in names if name in made]
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(asked, {input_name: inputs})
    return {name: np.asarray(value) for name, value in zip(asked, values, strict=True)}


def _openvino_values(
    path: Path, names: list[str], input_name: str, inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """Values of an OpenVINO model by tensor name; names that it lacks are left out."""
    import openvino

    del input_name
    model = openvino.Core().read_model(str(path))
    made = {name for operation in model.get_ops() for output in operation.outputs() for name in output.names}
    asked = [name for name in names if name in made]
    outputs = {name for output in model.outputs for name in output.names}
    model.add_outputs([name for name in asked if name not in outputs])
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled([inputs])
    return {name: np.array(result[name]) for name in asked}


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """1 - mean cosine over the rows of a batch; 2 where shapes differ or numbers are not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return 2.0
    a, b = (np.reshape(one, (len(one), -1)).astype(np.float64) for one in (found, expected))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(1 - ((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).mean())


def _before(graph: onnx.GraphProto, names: set[str]) -> dict[str, set[str]]:
    """For each compared value the nearest compared values that it is made of."""
    nearest: dict[str, set[str]] = {}
    before: dict[str, set[str]] = {}
    for node in graph.node:
        sources = set().union(*(nearest.get(name, set()) for name in node.input)) if node.input else set()
        for name in node.output:
            before[name] = sources
            nearest[name] = {name} if name in names else sources
    return before
