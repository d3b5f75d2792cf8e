"""Towers run by OpenVINO, in float32 or bfloat16, compiled once and kept for the next start."""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pocketclip.runtime.tower import TowerError

if TYPE_CHECKING:
    import openvino


class OpenVinoTower:
    """A tower in OpenVINO.

    Args:
        path: ONNX file, or OpenVINO's own .xml with its .bin beside it.
        arithmetic: "f32" or "bf16": what the matrix products are computed in. int8 layers stay int8.
        threads: of the arithmetic; None lets OpenVINO take one per core.
        cache: folder for compiled models, made if need be; None compiles anew.

    Raises:
        TowerError: OpenVINO cannot load it.
    """

    def __init__(
        self,
        path: Path,
        *,
        arithmetic: Literal["f32", "bf16"] = "f32",
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": arithmetic, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        if cache is not None:
            options["CACHE_DIR"] = str(cache)
        try:
            compiled = _core().compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise TowerError(f"openvino: {' '.join(str(error).split())}") from error
        self._compiled = compiled
        self._requests = threading.local()  # a request is one thread's at a time

    def run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """See `Tower`."""
        request = getattr(self._requests, "one", None)
        if request is None:
            request = self._requests.one = self._compiled.create_infer_request()
        try:
            request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        except RuntimeError as error:
            raise TowerError(" ".join(str(error).split())) from error
        return np.array(
            request.get_output_tensor(0).data, dtype=np.float32
        )  # the request's own memory is used again


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def has_bf16() -> bool:
    """Whether OpenVINO is installed, and multiplies bfloat16 in hardware here (AVX-512 BF16, AMX)."""
    return has_openvino() and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()
