"""A tower becomes one ONNX file: folded, its unit norm in the graph, any batch size.

Shapes: B batch, H and W picture, L tokens, D embedding.
"""

from __future__ import annotations

import logging
from pathlib import Path

import onnx_ir
import torch
from torch import Tensor, nn

from pocketclip.models.projection import unit_norm

_TRACE_BATCH = 2  # an example batch of 1 would be traced as a constant
_MAX_BYTES = 2**31 - 2**24  # one protobuf message, with room for the graph


class UnitNormTower(nn.Module):
    """A tower followed by the scaling of its embeddings to length 1, in float32."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, x: Tensor) -> Tensor:
        """What the tower takes, [B, ...] -> float32 [B, D], rows of length 1."""
        return unit_norm(self.tower(x))


def trace(tower: nn.Module, example: Tensor, path: Path, *, input_name: str, opset: int) -> None:
    """Writes a tower as one ONNX file, without external data and without traces of this machine.

    Args:
        tower: folded, in eval mode.
        example: input [2, ...]; every size but the first is fixed by it.
        path: of the file.
        input_name: name of the graph's input; the output is "unit_embed".
        opset: ONNX operator set.

    Raises:
        ValueError: the weights do not fit one ONNX file (2 GB).
    """
    assert example.shape[0] == _TRACE_BATCH
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
            UnitNormTower(tower).eval(),
            (example,),
            input_names=[input_name],
            output_names=["unit_embed"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    _strip(program.model)
    program.save(str(path), external_data=False)


def _strip(model: onnx_ir.Model) -> None:
    """Removes source paths and stack traces, which would also make the same weights give other bytes."""
    graph = model.graph
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
