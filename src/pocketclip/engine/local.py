"""A crew of one: this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from pocketclip.data.sample import JsonValue
from pocketclip.engine.job import Job, Outcome
from pocketclip.engine.worker import Order, Worker


class LocalCrew:
    """Does a job when it is waited for. See `driver.Crew`.

    Args:
        order: what is done.
    """

    def __init__(self, order: Order) -> None:
        self._worker = Worker(order)
        self._threads_before = torch.get_num_threads()
        self._job: Job | None = None
        self.progress: Callable[[int], object] = lambda _: None

    def open(self) -> Mapping[str, JsonValue]:
        """See `Crew`."""
        return self._worker.open()

    def has_room(self) -> bool:
        """See `Crew`."""
        return self._job is None

    def submit(self, job: Job) -> None:
        """See `Crew`."""
        assert self._job is None, "one at a time"
        self._job = job

    def wait(self, *, seconds: float, is_work_left: bool) -> list[Outcome]:
        """See `Crew`. Takes as long as the job takes."""
        if self._job is None:
            return []
        job, self._job = self._job, None
        return [self._worker.work(job, progress=self.progress)]

    def describe(self) -> str:
        """See `Crew`."""
        return ""

    def close(self) -> None:
        """See `Crew`. Torch gets its number of threads back."""
        torch.set_num_threads(self._threads_before)
