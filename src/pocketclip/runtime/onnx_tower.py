"""Towers run by ONNX Runtime: on the CPU, or by whatever provider this installation has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _engine  # ty: ignore[missing-module-member]

from pocketclip.runtime.tower import TowerError

CPU = "CPUExecutionProvider"
_QUIET = 3  # errors only
_DAMAGE = (
    _engine.Fail,
    _engine.InvalidArgument,
    _engine.InvalidGraph,
    _engine.InvalidProtobuf,
    _engine.NotImplemented,
    _engine.RuntimeException,
)


class OnnxTower:
    """A tower in ONNX Runtime.

    Args:
        path: ONNX file.
        provider: execution provider; what it cannot run, the CPU runs.
        threads: of the arithmetic; None lets ONNX Runtime take one per core.

    Raises:
        TowerError: ONNX Runtime cannot load it.
    """

    def __init__(self, path: Path, *, provider: str = CPU, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=list(dict.fromkeys((provider, CPU)))
            )
        except _DAMAGE as error:
            raise TowerError(
                f"onnxruntime {onnxruntime.__version__}: {' '.join(str(error).split())}"
            ) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """See `Tower`."""
        try:
            (embed_BD,) = self._session.run(None, {self._input: batch})
        except _DAMAGE as error:
            raise TowerError(" ".join(str(error).split())) from error
        assert isinstance(embed_BD, np.ndarray)
        return embed_BD


def has_provider(provider: str) -> bool:
    """Whether this installation of ONNX Runtime has an execution provider."""
    return provider in onnxruntime.get_available_providers()
