"""torch.export's own format: for other programs that have torch, and for its compilers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pocketclip.export.config import Precision
from pocketclip.export.half import make_half
from pocketclip.export.towers import TowerRequest, WrittenTower
from pocketclip.runtime.tower import Tower, TowerError


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.pt2."""
    islands = make_half(request) if request.precision == "fp16" else ()
    path = request.folder / f"{request.role}.pt2"
    torch.export.save(export_program(request), path)
    return WrittenTower(files={request.role: path.name}, settings={"float32_layers": list(islands)})


def export_program(request: TowerRequest) -> torch.export.ExportedProgram:
    """The tower as torch.export sees it, for any batch size."""
    shapes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        return torch.export.export(request.tower, (request.example,), dynamic_shapes=shapes)


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On torch."""
    del precision
    try:
        return _ProgramTower(torch.export.load(path).module())
    except (RuntimeError, ValueError, KeyError) as error:
        raise TowerError(f"torch.export: {' '.join(str(error).split())}") from error


class _ProgramTower:
    """A tower that torch runs."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    def run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """See `Tower`."""
        try:
            with torch.inference_mode():
                return self._module(torch.from_numpy(np.ascontiguousarray(batch))).numpy()
        except RuntimeError as error:
            raise TowerError(" ".join(str(error).split())) from error
