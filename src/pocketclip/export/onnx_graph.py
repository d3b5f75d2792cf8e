"""A tower becomes one ONNX file: folded, its unit norm in the graph, any batch size.

Shapes: B batch, H and W picture, L tokens, D embedding.
"""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import onnx_ir
import torch
from torch import Tensor, nn

from pocketclip.export.towers import EXAMPLE_BATCH, OUTPUT_NAME

_MAX_BYTES = 2**31 - 2**24  # one protobuf message, with room for the graph
_SCOPES = "pkg.torch.onnx.name_scopes"


def trace(tower: nn.Module, example: Tensor, path: Path, *, input_name: str, opset: int) -> None:
    """Writes a tower as one ONNX file, without external data and without traces of this machine.

    Args:
        tower: folded, in eval mode, with its unit norm.
        example: input [2, ...]; every size but the first is fixed by it.
        path: of the file.
        input_name: name of the graph's input; the output is `OUTPUT_NAME`.
        opset: ONNX operator set.

    Raises:
        ValueError: the weights do not fit one ONNX file (2 GB).
    """
    assert example.shape[0] == EXAMPLE_BATCH
    num_bytes = sum(value.numel() * value.element_size() for value in tower.state_dict().values())
    if num_bytes > _MAX_BYTES:
        raise ValueError(
            f"{path.name}: {num_bytes / 1e9:.1f} GB of weights do not fit one ONNX file (2 GB): "
            f"choose a smaller variant"
        )
    # It says that torchvision's operators are left out; no tower has one.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with torch.no_grad():
        program = torch.onnx.export(
            tower,
            (example,),
            input_names=[input_name],
            output_names=[OUTPUT_NAME],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    _strip(program.model)
    program.save(str(path), external_data=False)


def _strip(model: onnx_ir.Model) -> None:
    """Names nodes after their modules, and removes source paths, which would make the same weights give other bytes."""
    graph = model.graph
    taken: dict[str, int] = {}
    for node in graph.all_nodes():
        scope = _module(node)
        taken[scope] = taken.get(scope, 0) + 1
        node.name = f"{scope}/{node.op_type}" + (f"_{taken[scope]}" if taken[scope] > 1 else "")
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.doc_string = graph.doc_string = None
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None


def _module(node: onnx_ir.Node) -> str:
    """Dotted name of the innermost module that a node comes from, within the tower; empty outside all."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    modules = [
        scope for scope in scopes[:-1] if isinstance(scope, str) and scope
    ]  # the last is the operation
    if not modules or modules[-1].startswith("_empty_nn_module"):
        return ""
    return modules[-1].removeprefix("tower.").removeprefix("tower.")
