"""Albums, near-duplicates, outliers: worked out once for a state of the index, by one thread, and remembered."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWorking
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from pocketclip.search.listings import Group as Found
from pocketclip.search.query import Hit, SearchIndex
from pocketclip.search.server.answers import item_values
from pocketclip.search.server.problems import Refusal
from pocketclip.search.server.schemas import Group, Groups, HitItem, Outliers

Kind = Literal["albums", "duplicates", "outliers"]

_FRESH_S = 60.0  # an index that changes all the time is not divided anew for each change
_MOST_GROUPS = 500
_SHOWN = 100  # items of a group
_WAIT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class _Work:
    generation: int
    begun: float
    result: Future[list[Found]]


class Overviews:
    """Overviews of one index.

    Args:
        index: the index.
        clock: seconds, never going back.
    """

    def __init__(self, index: SearchIndex, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._index = index
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="overview")
        self._lock = Lock()
        self._works: dict[Kind, _Work] = {}

    def groups(self, kind: Literal["albums", "duplicates"]) -> Groups:
        """Albums, or groups of near-duplicates, the largest first.

        Raises:
            Refusal: it takes longer than a request may; it goes on meanwhile.
        """
        generation, found = self._found(kind)
        groups = [
            Group(
                title=group.title,
                items=[hit_item(hit) for hit in group.hits[:_SHOWN]],
                num_items=len(group.hits),
            )
            for group in found[:_MOST_GROUPS]
        ]
        return Groups(groups=groups, generation=generation)

    def outliers(self) -> Outliers:
        """What is like nothing else, the strangest first.

        Raises:
            Refusal: as `groups`.
        """
        generation, found = self._found("outliers")
        return Outliers(items=[hit_item(hit) for group in found for hit in group.hits], generation=generation)

    def close(self) -> None:
        """Waits for nothing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _found(self, kind: Kind) -> tuple[int, list[Found]]:
        work = self._work(kind)
        try:
            return work.generation, work.result.result(_WAIT_S)
        except StillWorking:
            sentence = f"{kind} of an index of this size take a while: ask again"
            raise Refusal(503, sentence, headers={"retry-after": "10"}) from None

    def _work(self, kind: Kind) -> _Work:
        generation = self._index.reader.generation()
        with self._lock:
            known = self._works.get(kind)
            is_old = known is None or (
                known.generation != generation
                and known.result.done()
                and self._clock() - known.begun > _FRESH_S
            )
            if known is None or is_old or (known.result.done() and known.result.exception() is not None):
                result = self._thread.submit(self._find, kind)
                known = _Work(generation=generation, begun=self._clock(), result=result)
                self._works[kind] = known
            return known

    def _find(self, kind: Kind) -> list[Found]:
        if kind == "albums":
            return self._index.albums()
        return self._index.duplicates() if kind == "duplicates" else [self._index.outliers()]


def hit_item(hit: Hit) -> HitItem:
    """A hit as the page sees it."""
    return HitItem(rank=hit.rank, score=round(hit.score, 6), **item_values(hit.picture))
