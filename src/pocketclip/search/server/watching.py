"""A child process that keeps the index up to date, so that indexing never holds up an answer.

    python -m pocketclip.search.server.watching INDEX [MODEL]

is what it runs. It ends when its standard input does, which the death of its parent brings about, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

_STOP_S = 10.0
_NICENESS = 10
_KEPT_LINES = 20


class Watcher:
    """Runs the indexer for the folders that an index holds, and looks after it.

    Args:
        index: the index.
        model: its exported model; None for the one that it remembers.
        command: what to run instead.
    """

    def __init__(self, index: Path, *, model: Path | None = None, command: tuple[str, ...] = ()) -> None:
        given = (str(index), *((str(model),) if model else ()))
        self._command = command or (sys.executable, "-m", __name__, *given)
        self._process: subprocess.Popen[str] | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reading: threading.Thread | None = None

    @property
    def problem(self) -> str | None:
        """Why it does not run any more; None while it does."""
        if self._process is None or self._process.poll() is None:
            return None
        said = [line.removeprefix("error: ") for line in self._lines if line.startswith("error: ")]
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
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reading is not None:
            self._reading.join(_STOP_S)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _read(self, errors: TextIO) -> None:
        """Takes in what it says, so that it never waits for a reader."""
        for line in errors:
            if line.strip():
                self._lines.append(line.strip())


def main(arguments: Sequence[str]) -> int:
    """Keeps an index up to date until standard input ends; says on standard error why it cannot."""
    from pocketclip.search.build import Indexer
    from pocketclip.search.watch import watch

    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, name="parent", daemon=True).start()
    index, *model = arguments
    try:
        watch(Indexer(Path(index), model=Path(model[0]) if model else None), stop=stop)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
