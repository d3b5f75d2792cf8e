"""A child process that keeps the index up to date, so that indexing never holds up an answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TextIO

_STOP_S = 10.0
_NICENESS = 10
_KEPT_LINES = 20


class Watcher:
    """Runs `pocketclip index --watch` for the folders that an index holds.

    Args:
        index: the index.
        model: its exported model; None for the one that it remembers.
        command: what to run instead.
    """

    def __init__(self, index: Path, *, model: Path | None = None, command: tuple[str, ...] = ()) -> None:
        self._command = command or _index_command(index, model)
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reading: threading.Thread | None = None

    @property
    def problem(self) -> str | None:
        """Why it does not run any more; None while it does."""
        if self._process is None or self._process.poll() is None:
            return None
        said = [line for line in self._lines if line.startswith("error")] or list(self._lines)
        return said[-1] if said else f"the indexer ended with code {self._process.returncode}"

    def start(self) -> None:
        """Starts it, with less claim on the processors than the server has."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)
        assert self._process.stderr is not None
        self._reading = threading.Thread(
            target=self._read, args=(self._process.stderr,), name="indexer", daemon=True
        )
        self._reading.start()

    def stop(self) -> None:
        """Ends it; what it has committed stays."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reading is not None:
            self._reading.join(_STOP_S)
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, errors: TextIO) -> None:
        """Takes in what it says, so that it never waits for a reader."""
        for line in errors:
            if line.strip():
                self._lines.append(line.strip())


def _index_command(index: Path, model: Path | None) -> tuple[str, ...]:
    given = ("--model", str(model)) if model else ()
    return (sys.executable, "-m", "pocketclip", "index", "--out", str(index), *given, "--watch")
