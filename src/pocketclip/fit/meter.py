"""How fast a run goes, what it waits for, how much memory it takes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

BatchT = TypeVar("BatchT")


class Meter:
    """Samples a second and the share of time spent waiting for data, since the last reading."""

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._started, self._waited, self._seen = time.monotonic(), 0.0, 0

    def next(self, batches: Iterator[BatchT], num_samples: Callable[[BatchT], int]) -> BatchT:
        """The next batch, its wait counted."""
        before = time.monotonic()
        batch = next(batches)
        self._waited += time.monotonic() - before
        self._seen += num_samples(batch)
        return batch

    @contextmanager
    def paused(self) -> Generator[None]:
        """Time that is not training's."""
        before = time.monotonic()
        yield
        self._started += time.monotonic() - before

    def rates(self, num_processes: int) -> dict[str, float]:
        """Reads the meter and starts it anew.

        Args:
            num_processes: that train together, each with about as many samples.

        Returns:
            `samples_per_s` of all processes together; `data_wait_share` of this one's time; `memory_gb`, the most that
            it has held so far, on the accelerator where there is one.
        """
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rates = {
            "samples_per_s": num_processes * self._seen / elapsed,
            "data_wait_share": self._waited / elapsed,
            "memory_gb": _peak_memory() / 1e9,
        }
        self._restart()
        return rates


def _peak_memory() -> int:
    """Bytes."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
