"""Which backend runs an exported model here: the first of the table that is there and passes."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from pocketclip.data.preprocess import Preprocess
from pocketclip.runtime.backends import BACKENDS
from pocketclip.runtime.cache import remembered
from pocketclip.runtime.manifest import Manifest
from pocketclip.runtime.probes import MIN_COSINE, read_probes, worst_cosine
from pocketclip.runtime.tower import Tower, TowerError

AUTO = "auto"
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino")


def choose(folder: Path, manifest: Manifest, *, role: str, threads: int | None) -> str:
    """Name of the backend for one tower.

    Backends that compute in float32 on the CPU are taken as they come. Others must first give the embeddings that the
    folder's probes carry, at a cosine of `MIN_COSINE`; the verdict is remembered for this machine, model and version.

    Raises:
        ValueError: nothing that is installed runs this target.
    """
    candidates = [name for name, backend in BACKENDS.items() if manifest.target in backend.targets]
    if not candidates:
        raise ValueError(
            f"{folder} was exported for {manifest.target}, which runs in an app of yours and not here: "
            f"export with `--to onnx` or `--to openvino` for this machine"
        )
    question = {
        "model": manifest.digest,
        "tower": role,
        "candidates": candidates,
        "versions": {name: _version(name) for name in _PACKAGES},
        "machine": [platform.machine(), platform.processor(), platform.node()],
        "min_cosine": MIN_COSINE,
    }
    name = remembered(question, lambda: _first(folder, manifest, candidates, role=role, threads=threads))
    if not name:
        raise ValueError(
            f"{folder} needs a runtime that is not installed: pip install 'pocketclip[openvino]', or export with "
            f"`--to onnx`"
        )
    return name


def feed(tower: Tower, inputs: np.ndarray, *, preprocess: Preprocess, pixels: str) -> np.ndarray:
    """A batch as it is kept (uint8 BHWC pixels, or tokens) through a tower: float32 [B, D].

    Args:
        tower: an image or a text tower.
        inputs: told apart by their number of axes.
        preprocess: how pixels are normalised.
        pixels: what the image tower takes, of `manifest.INPUTS`.
    """
    is_normalised_here = inputs.ndim == 4 and pixels == "float32"
    return tower.run(preprocess.normalise(inputs) if is_normalised_here else inputs)


def _first(folder: Path, manifest: Manifest, names: list[str], *, role: str, threads: int | None) -> str:
    return next(
        (
            name
            for name in names
            if BACKENDS[name].is_there() and _passes(folder, manifest, name, role, threads)
        ),
        "",
    )


def _passes(folder: Path, manifest: Manifest, name: str, role: str, threads: int | None) -> bool:
    backend = BACKENDS[name]
    if backend.is_exact:
        return True
    if "probes" not in manifest.files:
        return False
    probes = read_probes(folder / manifest.files["probes"].name)
    if role not in probes:
        return False
    try:
        tower = backend.open(folder / manifest.files[role].name, threads=threads)
        found = feed(tower, probes[role].inputs, preprocess=manifest.preprocess, pixels=manifest.pixels)
    except TowerError:
        return False
    return worst_cosine(found, probes[role].embed_PD) >= MIN_COSINE


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
