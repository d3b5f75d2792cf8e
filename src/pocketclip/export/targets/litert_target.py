"""LiteRT (.tflite), for Android. litert-torch pins versions that conflict with ours: another Python writes and runs it.

That Python is named by POCKETCLIP_LITERT_PYTHON; `make litert` builds it. The tower travels as a checkpoint, and comes
back as a file.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

import pocketclip
from pocketclip.data.sample import JsonValue
from pocketclip.export.config import Precision
from pocketclip.export.targets.pipe import receive, send
from pocketclip.export.towers import CannotRunError, TowerRequest, WrittenTower
from pocketclip.runtime.tower import Tower, TowerError

PYTHON = "POCKETCLIP_LITERT_PYTHON"
_WORKER = "pocketclip.export.targets.litert_worker"
_LIMIT_S = 1800


def write(request: TowerRequest) -> WrittenTower:
    """Writes ROLE.tflite.

    Raises:
        ImportError: there is no Python with litert-torch.
    """
    path = request.folder / f"{request.role}.tflite"
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "checkpoint.safetensors"
        request.save(checkpoint)
        _work("write", str(checkpoint), str(path), request.role, request.precision, request.pixels)
    settings: dict[str, JsonValue] = {"batch": 1}
    return WrittenTower(files={request.role: path.name}, settings=settings)


def open_tower(path: Path, *, precision: Precision) -> Tower:
    """On LiteRT's interpreter, in the other Python."""
    del precision
    try:
        _python()
    except ImportError as error:
        raise CannotRunError(str(error)) from error
    return _ProcessTower(path)


def _python() -> str:
    named = os.environ.get(PYTHON, "")
    if not named or not Path(named).is_file():
        raise ImportError(
            f"exporting to litert needs a Python of its own with litert-torch: `make litert` builds one; then set "
            f"{PYTHON} to its path"
        )
    return named


def _environment() -> dict[str, str]:
    """This package is found there too."""
    source = str(Path(pocketclip.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "ignore"}


def _work(*arguments: str) -> None:
    """Runs the worker in the other Python.

    Raises:
        TowerError: it failed; the text is its last line.
    """
    source = str(Path(pocketclip.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "ignore"}
    command = [_python(), "-m", _WORKER, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise TowerError(f"litert-torch failed: {lines[-1] if lines else done.returncode}")


class _ProcessTower:
    """A tower that LiteRT runs, a row at a time, in another process that lives as long as it."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [_python(), "-m", _WORKER, "serve", str(path)],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def run(self, batch: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """See `Tower`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, batch)
            found = receive(self._process.stdout)
        except (OSError, EOFError) as error:
            raise TowerError(f"LiteRT's process ended ({error})") from error
        if found is None:
            raise TowerError("LiteRT's process ended")
        return found

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.communicate()
