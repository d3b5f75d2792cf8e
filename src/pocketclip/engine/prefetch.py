"""Work done ahead of its use, in order, by threads, never more than so much of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

S = TypeVar("S")
T = TypeVar("T")

_END = object()


def mapped(
    function: Callable[[S], T], items: Iterable[S], *, pool: Executor, window: int
) -> Generator[T, None, None]:
    """The results of `function`, in the order of the items, while the pool works on the next ones.

    Args:
        function: called in the pool.
        items: taken one by one, in the thread that iterates.
        pool: does the work.
        window: results that are under way or wait, at most.
    """
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def ahead(items: Iterator[T], *, depth: int) -> Generator[Iterator[T], None, None]:
    """Iterates in a thread of its own, up to `depth` items before they are asked for.

    Args:
        items: iterated in that thread, to its end or to the end of the context; its exceptions appear where they would
            without the thread.
        depth: items that wait, at most.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        waiting: deque[Future[object]] = deque(thread.submit(next, items, _END) for _ in range(depth))

        def taken() -> Iterator[T]:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, items, _END))
                yield cast("T", item)

        try:
            yield taken()
        finally:
            for future in waiting:
                future.cancel()
