"""The driver: hands units to a crew of workers, counts, tries again, looks after stragglers, reports.

It keeps nothing of a unit that is done, so its memory does not grow with the number of shards.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tqdm import tqdm

from pocketclip.data.publish import PublishError
from pocketclip.data.sample import JsonValue
from pocketclip.engine.job import Done, Job, Outcome
from pocketclip.engine.units import Unit

_WAIT_S = 0.5
_REMEMBERED = 1000  # durations, for the median
_KNOWN = 3  # shards that must be done before one can be slow
_SLOW_S = 1.0  # nothing below is slow
_HOPELESS = 8  # shards that fail before any succeeds


class Crew(Protocol):
    """Workers, wherever they are. Jobs are told apart by their units' names; two may have one name."""

    def open(self) -> Mapping[str, JsonValue]:
        """Starts a worker at least and has it build what it works with; raises what that raises.

        Returns:
            Who is at work, `Maker.described`.
        """
        ...

    def has_room(self) -> bool:
        """Whether a worker would be idle without another job."""
        ...

    def submit(self, job: Job) -> None:
        """Takes a job."""
        ...

    def wait(self, *, seconds: float, is_work_left: bool) -> list[Outcome]:
        """The outcomes of jobs that have ended, one or more if some end within the time.

        With work left, more workers may be started; without, those that are idle may go.
        """
        ...

    def describe(self) -> str:
        """A few words for the progress line, "2 workers" say; may be empty."""
        ...

    def close(self) -> None:
        """Ends all workers at once, whatever they do; nothing half-made becomes visible."""
        ...


class FailedShardsError(ValueError):
    """Some shards could not be made; all others are done, and the same command tries again."""


@dataclass(kw_only=True)
class _Open:
    """A unit that is not done yet."""

    unit: Unit
    started: float
    copies: int = 1  # under way
    was_copied: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A unit that this run leaves out."""

    unit: Unit
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, JsonValue]:
        """As `failures.jsonl` has it."""
        return {"shard": self.unit.name, "input": self.unit.file, "reasons": list(self.reasons)}


@dataclass(kw_only=True)
class Driver:
    """Works through units.

    Args:
        crew: does the work.
        config_digest: recorded in the outputs.
        attempts: how often a unit is tried.
        straggler: times the median after which a second copy is started; 0: never.
        report: called with what became of a unit.
    """

    crew: Crew
    config_digest: str
    attempts: int
    straggler: float
    report: Callable[[Outcome, bool], object]
    failures: list[Failure] = field(default_factory=list)
    _following: Unit | None = None
    _open: dict[str, _Open] = field(default_factory=dict)
    _again: deque[_Open] = field(default_factory=deque)
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def run(self, units: Iterable[Unit]) -> Sequence[Failure]:
        """Works through all units; the failures are those that had all their tries.

        Raises:
            PublishError: the output cannot be written.
            FailedShardsError: not one shard succeeds.
        """
        fresh = iter(units)
        self._following = next(fresh, None)
        while self._open or self._following or self._again:
            while self.crew.has_room() and (job := self._next(fresh)) is not None:
                self.crew.submit(job)
            is_work_left = bool(self._following or self._again)
            for outcome in self.crew.wait(seconds=_WAIT_S, is_work_left=is_work_left):
                self._settle(outcome)
        return self.failures

    def _next(self, fresh: Iterator[Unit]) -> Job | None:
        """A new unit, else one that failed, else a copy of one that takes long."""
        unit, self._following = self._following, next(fresh, None) if self._following else None
        if unit is not None:
            return self._begin(_Open(unit=unit, started=time.monotonic()))
        if self._again:
            again = self._again.popleft()
            return self._begin(_Open(unit=again.unit, started=time.monotonic(), reasons=again.reasons))
        slow = self._slowest()
        if slow is None:
            return None
        slow.copies, slow.was_copied = 2, True
        return Job(unit=slow.unit, config_digest=self.config_digest, reasons=slow.reasons)

    def _begin(self, opened: _Open) -> Job:
        self._open[opened.unit.name] = opened
        return Job(unit=opened.unit, config_digest=self.config_digest, reasons=opened.reasons)

    def _slowest(self) -> _Open | None:
        if self.straggler == 0 or len(self._seconds) < _KNOWN:
            return None
        slow_s = max(_SLOW_S, self.straggler * statistics.median(self._seconds))
        candidates = [opened for opened in self._open.values() if not opened.was_copied]
        oldest = min(candidates, key=lambda opened: opened.started, default=None)
        if oldest is None or time.monotonic() - oldest.started < slow_s:
            return None
        return oldest

    def _settle(self, outcome: Outcome) -> None:
        opened = self._open.get(outcome.name)
        if opened is None:  # the slower of two copies
            return
        if isinstance(outcome, Done):
            del self._open[outcome.name]
            self._seconds.append(outcome.seconds)
            self.report(outcome, False)
            return
        if outcome.ends_run:
            raise PublishError(outcome.reason)
        opened.copies -= 1
        opened.reasons = (*opened.reasons, outcome.reason)
        if opened.copies:
            return
        del self._open[outcome.name]
        if outcome.may_pass and len(opened.reasons) < self.attempts:
            self._again.append(opened)
            self.report(outcome, False)
            return
        self.failures.append(Failure(unit=opened.unit, reasons=opened.reasons))
        self.report(outcome, True)
        if not self._seconds and len(self.failures) >= _HOPELESS:
            raise FailedShardsError(
                f"the first {len(self.failures)} shards all failed, the last, {outcome.name}, because: {outcome.reason}"
            )


class Progress:
    """One line: what is done, how fast, how long it still takes, what was left out.

    Args:
        name: what is done.
        num_units: all shards.
        num_samples: all samples; None where nobody knows, and shards are counted.
        describe: says who is at work.
    """

    def __init__(
        self, *, name: str, num_units: int, num_samples: int | None, describe: Callable[[], str]
    ) -> None:
        self._counts_samples = num_samples is not None
        self._describe = describe
        self._skipped = self._failed = self._samples = 0
        self._bar = tqdm(
            total=num_samples if self._counts_samples else num_units,
            desc=name,
            unit="sample" if self._counts_samples else "shard",
            mininterval=0.5 if sys.stderr.isatty() else 10,
            smoothing=0.05,
        )
        self._started = time.monotonic()
        self._advanced = 0  # items of the shard at hand that the line has

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def found(self, num_samples: int, num_dropped: int) -> None:
        """A shard that an earlier run finished: it counts, but not for the rate."""
        self._skipped += num_dropped
        num = num_samples + num_dropped if self._counts_samples else 1
        self._bar.initial += num
        self._bar.n += num

    def items(self, num: int) -> None:
        """Some items of the shard at hand are through."""
        if self._counts_samples:
            self._advanced += num
            self._bar.update(num)

    def outcome(self, outcome: Outcome, is_final: bool) -> None:
        """A shard is done, or a try failed."""
        num = 0
        if isinstance(outcome, Done):
            self._skipped += outcome.num_dropped
            self._samples += outcome.num_samples
            num = outcome.num_samples + outcome.num_dropped if self._counts_samples else 1
        else:
            self._failed += is_final
            again = "left out" if is_final else "tried again later"
            tqdm.write(f"{outcome.name} failed and is {again}: {outcome.reason}", file=sys.stderr)
        self._bar.update(num - self._advanced)
        self._advanced = 0
        self._bar.set_postfix(self._facts(), refresh=False)

    def _facts(self) -> Mapping[str, str | int]:
        facts: dict[str, str | int] = {"skipped": self._skipped}
        if self._failed:
            facts["failed"] = self._failed
        if not self._counts_samples:
            facts["samples/s"] = f"{self._samples / (time.monotonic() - self._started):.1f}"
        if self._describe():
            facts["by"] = self._describe()
        return facts
