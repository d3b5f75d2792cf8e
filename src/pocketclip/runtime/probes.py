"""Inputs that an exported model carries with its embeddings of them, so that another machine can check itself.

Shapes: P probes, H and W picture, L tokens, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pocketclip.data.publish import publish_file

PROBES_FILE = "probes.safetensors"
MIN_COSINE = 0.999
"""What a backend's embedding must have with the export's own, for the worst probe, to be chosen by itself."""


@dataclass(frozen=True, kw_only=True)
class TowerProbes:
    """One tower's probes.

    Attributes:
        inputs: uint8 pixels [P, H, W, 3], or int64 tokens [P, L].
        embed_PD: float32 [P, D], rows of length 1: what the export gave when it was judged, or, where nothing ran it
            then, the checkpoint.
    """

    inputs: npt.NDArray[np.generic]
    embed_PD: npt.NDArray[np.float32]


def write_probes(folder: Path, probes: Mapping[str, TowerProbes]) -> None:
    """Writes `probes.safetensors`: tower -> its probes."""
    arrays: dict[str, np.ndarray] = {}
    for tower, one in probes.items():
        arrays[f"{tower}.inputs"] = np.ascontiguousarray(one.inputs)
        arrays[f"{tower}.embed"] = np.ascontiguousarray(one.embed_PD, dtype=np.float32)
    with publish_file(folder / PROBES_FILE) as file:
        file.write(save(arrays))


def read_probes(path: Path) -> dict[str, TowerProbes]:
    """The inverse of `write_probes`.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        arrays = load_file(path)
        towers = {name.partition(".")[0] for name in arrays}
        return {
            tower: TowerProbes(inputs=arrays[f"{tower}.inputs"], embed_PD=arrays[f"{tower}.embed"])
            for tower in sorted(towers)
        }
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds no probes ({error}): export the checkpoint again") from error


def worst_cosine(found_PD: npt.NDArray[np.float32], expected_PD: npt.NDArray[np.float32]) -> float:
    """Smallest cosine of corresponding rows; -1 where shapes differ or numbers are not finite."""
    if found_PD.shape != expected_PD.shape or not np.isfinite(found_PD).all():
        return -1.0
    lengths_P = np.linalg.norm(found_PD, axis=1) * np.linalg.norm(expected_PD, axis=1)
    return float(((found_PD * expected_PD).sum(axis=1) / np.maximum(lengths_P, 1e-30)).min())
