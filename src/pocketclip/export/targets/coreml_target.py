"""Core ML: an .mlpackage for Apple's devices. It runs on macOS only; elsewhere its structure is checked, no numbers."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.export.towers import INPUT_NAMES, OUTPUT_NAME, CannotRunError, TowerRequest, WrittenTower
from pocketclip.runtime.tower import Tower, TowerError

_LARGEST_BATCH = 64


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.mlpackage, a folder."""
    import coremltools

    logging.getLogger("coremltools").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    with torch.no_grad():
        program = torch.export.export(request.tower, (request.example,), dynamic_shapes=({0: batch},))
    shape = (coremltools.RangeDim(1, _LARGEST_BATCH, 1), *request.example.shape[1:])
    kind = np.float32 if request.role == "image" else np.int32
    is_half = request.precision == "fp16"
    model = coremltools.convert(
        program.run_decompositions({}),
        inputs=[coremltools.TensorType(name=INPUT_NAMES[request.role], shape=shape, dtype=kind)],
        outputs=[coremltools.TensorType(name=OUTPUT_NAME, dtype=np.float32)],
        minimum_deployment_target=coremltools.target.iOS16,
        compute_precision=coremltools.precision.FLOAT16 if is_half else coremltools.precision.FLOAT32,
        skip_model_load=sys.platform != "darwin",
    )
    if request.precision == "int8-weights":
        from coremltools.optimize import coreml as optimize

        how = optimize.OptimizationConfig(
            global_config=optimize.OpLinearQuantizerConfig(mode="linear_symmetric")
        )
        model = optimize.linear_quantize_weights(model, how)
    path = request.folder / f"{request.role}.mlpackage"
    model.save(str(path))
    _check_structure(path, request)
    settings: dict[str, JsonValue] = {"largest_batch": _LARGEST_BATCH, "deployment_target": "iOS16"}
    return WrittenTower(files={request.role: path.name}, settings=settings)


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On Core ML, where there is one."""
    del precision
    if sys.platform != "darwin":
        raise CannotRunError("Core ML runs on macOS")
    import coremltools

    return _PackageTower(coremltools.models.MLModel(str(path)))


def _check_structure(path: Path, request: TowerRequest) -> None:
    """Reads the package again: one input and one output of the right name and shape, weights that are all there."""
    import coremltools

    description = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec().description
    named = [one.name for one in description.input], [one.name for one in description.output]
    if named != ([INPUT_NAMES[request.role]], [OUTPUT_NAME]):
        raise ValueError(
            f"{path.name}: coremltools wrote inputs and outputs {named}: use the version of the lock file"
        )
    sizes = tuple(description.input[0].type.multiArrayType.shape)
    if sizes[1:] != tuple(request.example.shape[1:]):
        raise ValueError(
            f"{path.name}: coremltools wrote an input of {sizes}: use the version of the lock file"
        )
    num_bytes = sum(file.stat().st_size for file in path.rglob("*.bin"))
    num_weights = sum(weight.numel() for weight in request.tower.parameters())
    bytes_each = {"fp32": 4, "fp16": 2}.get(request.precision, 1)
    if num_bytes < 0.95 * bytes_each * num_weights:
        raise ValueError(
            f"{path.name}: {num_bytes:,} bytes cannot hold {num_weights:,} weights of {request.precision}"
        )


class _PackageTower:
    """A tower that Core ML runs."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - of a package without types
        self._model = model
        self._input = model.get_spec().description.input[0].name

    def run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """See `Tower`."""
        try:
            found = self._model.predict({self._input: batch if batch.ndim == 4 else batch.astype(np.int32)})
        except RuntimeError as error:
            raise TowerError(f"Core ML: {' '.join(str(error).split())}") from error
        return np.asarray(found[OUTPUT_NAME], dtype=np.float32)
