"""Threads for what takes time, so that the event loop never waits: searches, files, and work on the whole index."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request

from pocketclip.search.server.config import Limits
from pocketclip.search.server.problems import Refusal

Work = Literal["search", "file", "whole"]

_Answer = TypeVar("_Answer")


class Workers:
    """Runs functions in threads: so many searches at a time, so many files, so many that wait for overviews.

    Args:
        limits: seconds for an answer, and how many may wait.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = {
            "search": anyio.CapacityLimiter(max(2, os.cpu_count() or 1)),
            "file": anyio.CapacityLimiter(8),
            "whole": anyio.CapacityLimiter(4),
        }
        self._threads = anyio.CapacityLimiter(64)

    async def run(self, work: Work, function: Callable[[], _Answer], *, request: Request) -> _Answer:
        """The function's result.

        Raises:
            Refusal: too many are waiting, it took too long, or the client has gone (it types on).
        """
        places = self._places[work]
        if places.statistics().tasks_waiting >= self._limits.waiting:
            raise Refusal(503, "too many requests at once: try again", headers={"retry-after": "1"})
        try:
            with anyio.fail_after(self._limits.answer_s):
                async with places:
                    if await request.is_disconnected():
                        raise Refusal(499, "the client has gone")
                    return await anyio.to_thread.run_sync(
                        function, abandon_on_cancel=True, limiter=self._threads
                    )
        except TimeoutError:
            sentence = f"the answer took longer than {self._limits.answer_s:g} s and was given up"
            raise Refusal(503, sentence, headers={"retry-after": "5"}) from None
