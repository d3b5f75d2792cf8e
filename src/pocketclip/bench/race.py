"""Contenders take turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Rounds = Sequence[Sequence[float]]
"""Seconds of each call, by round."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The calls of one contender in one race.

    Attributes:
        rounds: seconds of each call, by round.
    """

    rounds: Rounds

    @property
    def calls(self) -> list[float]:
        """Seconds of all calls."""
        return [seconds for turn in self.rounds for seconds in turn]

    @property
    def medians(self) -> list[float]:
        """Seconds, of each round."""
        return [statistics.median(turn) for turn in self.rounds]

    def ratios(self, other: Timing) -> list[float]:
        """Own median over the other's, round by round."""
        return [own / others for own, others in zip(self.medians, other.medians, strict=True)]


def race(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    turn_seconds: float,
    warmup: int,
    on_turn: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time all contenders in turns; each round another one begins.

    Args:
        contenders: name -> one call.
        rounds: turns of each.
        turn_seconds: a turn is one timed call, and further ones until so much time has gone by.
        warmup: calls of each before the first round. Every turn begins with one more that is not timed, because the
            others have had the caches since.
        on_turn: called after each turn.
    """
    names = list(contenders)
    for name in names:
        for _ in range(warmup):
            contenders[name]()
    taken: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            taken[name].append(_turn(contenders[name], turn_seconds))
            on_turn()
    return {name: Timing(rounds=turns) for name, turns in taken.items()}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    return float(q1), float(median), float(q3)


def _turn(call: Callable[[], object], turn_seconds: float) -> list[float]:
    call()
    taken: list[float] = []
    begun = time.perf_counter()
    while not taken or time.perf_counter() - begun < turn_seconds:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken
