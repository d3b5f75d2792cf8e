"""What travels between the driver and a worker: a unit to try, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pocketclip.engine.units import Unit


@dataclass(frozen=True, kw_only=True)
class Job:
    """One try at a unit.

    Attributes:
        unit: the input.
        config_digest: recorded in the output.
        reasons: why earlier tries failed.
    """

    unit: Unit
    config_digest: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Done:
    """A unit that has its output and its marker."""

    name: str
    num_samples: int
    num_dropped: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A try that came to nothing.

    Attributes:
        name: of the unit.
        reason: one sentence.
        may_pass: trying again may help.
        ends_run: nothing else can succeed either.
        is_broken: the worker itself may be what is wrong.
    """

    name: str
    reason: str
    may_pass: bool
    ends_run: bool = False
    is_broken: bool = False


Outcome: TypeAlias = Done | Failed
