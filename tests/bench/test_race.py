"""Races: turns are taken in turn, and noise that hits all alike leaves ratios alone."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from pocketclip.bench import race as racing
from pocketclip.bench.race import Timing, quartiles, race


class Clock:
    """Time that passes only when somebody works; the machine slows down as the race goes on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def work(self, name: str, seconds: float) -> None:
        self.calls.append(name)
        self.now += seconds * (1 + 0.1 * (len(self.calls) // 6))

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(racing, "time", found)
    return found


def test_another_begins_each_round_and_warm_up_is_not_timed(clock: Clock) -> None:
    contenders = {name: (lambda name=name: clock.work(name, 1.0)) for name in "abc"}
    turns: list[int] = []
    timings = race(contenders, rounds=4, turn_seconds=0.0, warmup=2, on_turn=lambda: turns.append(1))
    assert "".join(clock.calls[:6]) == "aabbcc"
    assert "".join(clock.calls[6::2]) == "abcbcacababc"  # each turn has one call that is not timed
    assert len(turns) == 12
    assert {name: [len(turn) for turn in timing.rounds] for name, timing in timings.items()} == {
        name: [1, 1, 1, 1] for name in "abc"
    }


def test_a_turn_lasts_as_long_as_asked(clock: Clock) -> None:
    timings = race({"a": lambda: clock.work("a", 0.5)}, rounds=1, turn_seconds=2.0, warmup=1)
    assert len(timings["a"].calls) >= 3


def test_a_machine_that_slows_down_leaves_ratios_as_they_are() -> None:
    slow = [1.0, 2.0, 8.0]
    one = Timing(rounds=[[0.2 * s, 0.2 * s] for s in slow])
    other = Timing(rounds=[[0.1 * s] for s in slow])
    assert one.ratios(other) == pytest.approx([2.0, 2.0, 2.0])
    assert quartiles(one.calls)[1] == pytest.approx(0.4)
