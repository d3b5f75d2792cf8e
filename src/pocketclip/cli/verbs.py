"""The verbs as the command line sees them: arguments with their help, the call, and what is printed of its result.

What a verb needs is imported when it is called, so that searching never imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Protocol

from tyro.conf import Positional

from pocketclip.cli.extras import require


@dataclass(frozen=True)
class Outcome:
    """What a verb has to say: for people, for scripts (`--json`), and as the exit code."""

    text: str
    values: Mapping[str, object]
    code: int = 0


class UsageError(ValueError):
    """The command line makes no sense, whatever the files hold."""


class Verb(Protocol):
    """A verb's arguments."""

    @property
    def json(self) -> bool:
        """Whether a script reads the output."""
        ...

    def run(self) -> Outcome:
        """Does it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole road on real pictures, with two teachers and two students, up to a report.html.

    Takes minutes on two cores; interrupted, it goes on where it was.

    Examples:
        pocketclip demo demo/
        pocketclip demo look/ --quick
    """

    out: Positional[Path]
    """Folder for everything."""
    quick: bool = False
    """About a minute: few pictures and steps, only to see that everything runs."""
    seed: int = 0
    """Seed of the students."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Walks the road."""
        require("demo", ("train", "onnx", "demo"))
        from pocketclip.recipes.demo import DemoConfig, demo

        config = DemoConfig(quick=self.quick, seed=self.seed)
        result = demo(self.out, config=config, announce=lambda line: print(line, file=sys.stderr, flush=True))
        total = sum(seconds for _, seconds in result.timings)
        clock = [f"{seconds:8.1f} s  {step}" for step, seconds in result.timings]
        lines = [result.table, "", *clock, f"{total:8.1f} s  in all", "", result.headline, ""]
        lines += [
            f"report: {result.report}",
            f'search: pocketclip search {quote(str(result.index))} "a red heart"',
        ]
        values = {
            "headline": result.headline,
            "seconds": dict(result.timings),
            "report": str(result.report),
            "index": str(result.index),
        }
        return Outcome("\n".join(lines), values)


SHOWN = 5
"""So much of what was left out is printed."""


def some(items: Sequence[tuple[str, str]], *, what: str, num: int | None = None) -> list[str]:
    """Lines: the count of what was left out (`num`, or all that is listed), and the first of it."""
    num = len(items) if num is None else num
    if not num:
        return []
    shown = [f"{'':8} {name}: {reason.removeprefix(f'{name}: ')}" for name, reason in items[:SHOWN]]
    return [f"{num:8} {what}" + (", the first:" if num > SHOWN else ":"), *shown]
