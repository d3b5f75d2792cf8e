"""What changes in the index, told to all who follow it: one look at the index twice a second, however many they are."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio.to_thread

from pocketclip.search.server.answers import UNREADABLE
from pocketclip.search.server.problems import Refusal
from pocketclip.search.server.schemas import Status
from pocketclip.search.server.watching import Watcher
from pocketclip.search.store import IndexReader

POLL_S = 0.5
_LATELY_S = 6.0
_KEEP_ALIVE_S = 15.0


class Bulletin:
    """The index's status, and streams of it.

    Args:
        reader: of the index.
        name: of the index, for people.
        streams: most that may be open.
        watcher: the process that looks after the folders; None where there is none.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        reader: IndexReader,
        *,
        name: str,
        streams: int,
        watcher: Watcher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._name = name
        self._most = streams
        self._watcher = watcher
        self._clock = clock
        self._seen: deque[tuple[float, int, int]] = deque()  # seconds, generation, items
        self._counted: tuple[int, int, int] = (-1, 0, 0)  # generation, skipped, newest
        self._changed = asyncio.Event()
        self._status: Status | None = None
        self._is_over = False
        self.num_streams = 0

    def look(self) -> Status:
        """The status now; asks the index."""
        now = self._clock()
        generation, num_items = self._reader.generation(), len(self._reader)
        if not self._seen or self._seen[-1][1] != generation:
            self._seen.append((now, generation, num_items))
        while len(self._seen) > 1 and self._seen[1][0] < now - _LATELY_S:
            self._seen.popleft()
        if self._counted[0] != generation:
            newest = self._reader.page(limit=1, order="added")
            self._counted = (generation, len(self._reader.skipped()), newest[0].id if newest else 0)
        then, _, before = self._seen[0]
        is_indexing = len(self._seen) > 1 and now - self._seen[-1][0] < _LATELY_S
        rate = (num_items - before) / max(now - then, POLL_S) if is_indexing else 0.0
        return Status(
            name=self._name,
            num_items=num_items,
            num_skipped=self._counted[1],
            generation=generation,
            is_indexing=is_indexing,
            items_per_s=round(max(rate, 0.0), 1),
            newest_id=self._counted[2],
            is_watching=self._watcher is not None and self._watcher.problem is None,
            watch_problem=self._watcher.problem if self._watcher else None,
        )

    async def keep_looking(self) -> None:
        """Looks at the index while anybody follows it, until cancelled."""
        while True:
            if self.num_streams:
                try:
                    status = await anyio.to_thread.run_sync(self.look)
                except (
                    *UNREADABLE,
                    ValueError,
                ):  # replaced at this moment, say: the next look may see it whole
                    status = self._status
                if status is not None and status != self._status:
                    self._status = status
                    self._changed.set()
                    self._changed = asyncio.Event()
            await asyncio.sleep(POLL_S)

    async def follow(self) -> AsyncIterator[Status | None]:
        """The status now and whenever it changes; None now and then, to keep the connection.

        Raises:
            Refusal: too many follow already.
        """
        if self.num_streams >= self._most:
            raise Refusal(429, "too many follow the events already", headers={"retry-after": "30"})
        self.num_streams += 1
        try:
            now = await anyio.to_thread.run_sync(self.look)
            self._status = self._status or now
            yield now
            while not self._is_over:
                changed = self._changed
                try:
                    async with asyncio.timeout(_KEEP_ALIVE_S):
                        await changed.wait()
                    if not self._is_over:
                        yield self._status
                except TimeoutError:
                    yield None
        finally:
            self.num_streams -= 1

    def end(self) -> None:
        """Ends all streams: the server stops."""
        self._is_over = True
        self._changed.set()
