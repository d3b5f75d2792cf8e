"""ExecuTorch with XNNPACK, for Android, iOS and small boards. A batch of one: dynamic ones give wrong numbers."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.export.towers import TowerRequest, WrittenTower, is_delicate
from pocketclip.runtime.tower import Tower, TowerError


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.pte."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    logging.getLogger("torchao").setLevel(logging.ERROR)
    example = request.example[:1].contiguous()
    tower = _quantise(request, example) if request.precision == "int8" else request.tower
    with torch.no_grad():
        program = torch.export.export(tower, (example,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    path = request.folder / f"{request.role}.pte"
    with publish_file(path) as file:
        file.write(lowered.buffer)
    settings: dict[str, JsonValue] = {"batch": 1, "backend": "XNNPACK"}
    return WrittenTower(files={request.role: path.name}, settings=settings)


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On ExecuTorch's own runtime for Python."""
    del precision
    from executorch.runtime import Runtime

    try:
        method = Runtime.get().load_program(path).load_method("forward")
    except RuntimeError as error:
        raise TowerError(f"executorch: {' '.join(str(error).split())}") from error
    return _MethodTower(method)


def _quantise(request: TowerRequest, example: torch.Tensor) -> nn.Module:
    """int8 per channel: static and calibrated for pictures, with dynamic activations for texts."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    assert len(request.calibration), "int8 is calibrated"
    is_transformer = request.role == "text"
    quantizer = XNNPACKQuantizer()
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=is_transformer)
    if is_transformer:
        quantizer.set_global(config)
    else:  # sums and products of int8 maps cost accuracy and save nothing
        delicate = {name for name, module in request.tower.named_modules() if is_delicate(name, module)}
        for operation in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
            quantizer.set_operator_type(operation, config)  # ty: ignore[invalid-argument-type]
        quantizer.set_filter_function(lambda node: not delicate & _modules(node))
    with torch.no_grad():
        captured = torch.export.export(request.tower, (example,)).module()
        prepared = prepare_pt2e(captured, quantizer)
        for row in request.calibration:
            prepared(torch.from_numpy(np.ascontiguousarray(row[None])))
        return convert_pt2e(prepared)


def _modules(node: torch.fx.Node) -> set[str]:
    """Names of the modules that a node was traced in."""
    return {name for name, _ in node.meta.get("nn_module_stack", {}).values()}


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without the lines that ExecuTorch's kernels write to the process's stderr at every call."""
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


class _MethodTower:
    """A tower that ExecuTorch runs, a row at a time."""

    def __init__(self, method: Any) -> None:  # noqa: ANN401 - of a package without types
        self._method = method

    def run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """See `Tower`."""
        try:
            with _quiet():
                rows = [self._row(np.ascontiguousarray(row[None])) for row in batch]
        except RuntimeError as error:
            raise TowerError(" ".join(str(error).split())) from error
        return np.concatenate(rows)

    def _row(self, row: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        return self._method.execute([torch.from_numpy(row)])[0].numpy().copy()
