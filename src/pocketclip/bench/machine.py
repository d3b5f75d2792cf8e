"""The machine: what it is, and what its arithmetic reaches in a matrix product."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pocketclip.bench.report import Machine
from pocketclip.bench.subject import DTYPES

_SIDE = 1024
PEAK_FLOPS = 2 * _SIDE**3
"""Operations of one `peak_call`."""
_PACKAGES = ("pocketclip", "torch", "onnxruntime", "openvino", "numpy")


def describe_machine(device: str) -> Machine:
    """The machine at hand."""
    on_card = device.startswith("cuda")
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        device=torch.cuda.get_device_name(device) if on_card else device,
        versions={"python": platform.python_version()}
        | {name: found for name in _PACKAGES if (found := _version(name))},
    )


def peak_call(precision: str, device: str) -> Callable[[], object]:
    """One product of two square matrices, the best case of what towers are made of."""
    dtype = DTYPES.get(precision, torch.float32)
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(_SIDE, _SIDE, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(one)

    def call() -> None:
        torch.mm(one, other, out=out)
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return call


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
