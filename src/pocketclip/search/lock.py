"""One process indexes at a time; the system gives its lock back when it ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pocketclip.data.publish import cannot_write
from pocketclip.search.schema import LOCK_FILE

_ATTEMPTS, _PAUSE_S = 5, 0.02


@contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Holds the lock of an index.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be written.
    """
    with cannot_write(path):
        number = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:  # for a moment `is_locked` may be looking
                if attempt + 1 == _ATTEMPTS:
                    raise BlockingIOError(
                        f"{path} is being indexed by another process: wait for it, or stop it"
                    ) from error
                time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(number)


def is_locked(path: Path) -> bool:
    """Whether some process is indexing."""
    try:
        number = os.open(path / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
