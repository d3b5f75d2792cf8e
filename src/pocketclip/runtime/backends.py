"""What can run an exported tower: a table, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from pocketclip.runtime.cache import cache_folder
from pocketclip.runtime.onnx_tower import CPU, OnnxTower, has_provider
from pocketclip.runtime.openvino_tower import OpenVinoTower, has_bf16, has_openvino
from pocketclip.runtime.tower import Tower


class OpenTower(Protocol):
    """Opens a tower's file."""

    def __call__(self, path: Path, *, threads: int | None) -> Tower:
        """Raises TowerError where it cannot."""
        ...


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A way to run towers.

    Attributes:
        targets: of exports that it runs.
        is_exact: float32 arithmetic on the CPU: it needs no check on the machine at hand.
        is_there: whether this machine and installation have it.
        open: opens a tower.
    """

    targets: tuple[str, ...]
    is_exact: bool
    is_there: Callable[[], bool]
    open: OpenTower


def _openvino(path: Path, *, threads: int | None, arithmetic: Literal["f32", "bf16"]) -> Tower:
    return OpenVinoTower(path, arithmetic=arithmetic, threads=threads, cache=cache_folder() / "openvino")


def _onnx(path: Path, *, threads: int | None, provider: str) -> Tower:
    return OnnxTower(path, provider=provider, threads=threads)


def _provider(provider: str) -> Backend:
    return Backend(
        targets=("onnx", "web"),
        is_exact=provider == CPU,
        is_there=partial(has_provider, provider),
        open=partial(_onnx, provider=provider),
    )


BACKENDS: Mapping[str, Backend] = {
    "tensorrt": _provider("TensorrtExecutionProvider"),
    "cuda": _provider("CUDAExecutionProvider"),
    "coreml": _provider("CoreMLExecutionProvider"),
    "webgpu": _provider("WebGpuExecutionProvider"),
    "openvino-bf16": Backend(
        targets=("onnx", "web", "openvino"),
        is_exact=False,
        is_there=has_bf16,
        open=partial(_openvino, arithmetic="bf16"),
    ),
    "onnxruntime": _provider(CPU),
    "openvino": Backend(
        targets=("onnx", "web", "openvino"),
        is_exact=True,
        is_there=has_openvino,
        open=partial(_openvino, arithmetic="f32"),
    ),
}
"""Name -> backend, in the order in which they are tried. None computes in float16 on a CPU: that is emulated."""
