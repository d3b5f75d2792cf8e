"""Temporary folders that do not outlive their process by much, even when it is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_FRESH_S = 60.0  # a folder so young may not have its lock yet


@contextmanager
def scratch_folder(purpose: str) -> Generator[Path, None, None]:
    """A folder in the system's temporary one, gone when the context ends.

    Those of killed processes, which no longer hold their folder's lock, are removed by the next one that asks.

    Args:
        purpose: part of its name, a word.
    """
    prefix = f".pocketclip-{purpose}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # in use, another user's, or being removed by someone else
            if time.time() - left.stat().st_mtime > _FRESH_S:
                with _locked(left):
                    shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    """Holds a folder's lock, which the system gives back when the process ends. BlockingIOError when it is held."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)
