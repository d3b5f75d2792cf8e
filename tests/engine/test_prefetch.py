"""Work ahead of its use: in order, never more than so much, exceptions where they belong."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pocketclip.engine.prefetch import ahead, mapped


def test_results_come_in_order_and_the_window_bounds_what_is_taken():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    def work(number):
        time.sleep(0.002 * (number % 3))
        return number * number

    with ThreadPoolExecutor(4) as pool:
        for number, result in enumerate(mapped(work, items(), pool=pool, window=6)):
            assert result == number * number
            assert len(taken) <= number + 6
    assert len(taken) == 50


def test_an_exception_comes_at_its_place():
    def work(number):
        if number == 3:
            raise KeyError(number)
        return number

    with ThreadPoolExecutor(2) as pool:
        results = mapped(work, range(10), pool=pool, window=4)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError):
            next(results)


def test_ahead_iterates_in_one_other_thread_and_only_so_far():
    taken, threads = [], set()

    def items():
        for number in range(20):
            taken.append(number)
            threads.add(threading.current_thread())
            yield number

    with ahead(items(), depth=3) as ready:
        assert next(ready) == 0
        time.sleep(0.05)
        assert len(taken) == 4
        assert list(ready) == list(range(1, 20))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_ahead_passes_exceptions_on_and_ends_early():
    def items():
        yield 1
        raise KeyError("two")

    with ahead(items(), depth=2) as ready:
        assert next(ready) == 1
        with pytest.raises(KeyError, match="two"):
            next(ready)
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    generator = endless()
    with ahead(generator, depth=2) as ready:
        next(ready)
    generator.close()  # no thread is in it any more
    assert closed == [True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
