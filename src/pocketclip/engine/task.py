"""What a verb brings: a task, which travels, and what it builds wherever the work is done.

    task (plain data, pickled) --build()--> maker (holds the teachers) --make(unit)--> an output and its facts

The engine opens inputs, publishes outputs, marks them done and decides who does what; the verb decides what the bytes
are. `make` has to be a pure function of the unit and the configuration: a unit may be made twice, by two workers at
once, and both must give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from pocketclip.data.index import Dropped
from pocketclip.data.sample import JsonValue
from pocketclip.engine.job import Job
from pocketclip.engine.units import OpenUnit


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What became of a unit; together with who made it, a line of the manifest.

    Attributes:
        num_samples: in the output; 0 when nothing was written.
        num_bytes: size of the output.
        sha256: of the output; empty when nothing was written.
        input_sha256: of the unit.
        dropped: what the unit offered and the output does not have; the source is a key, or what a reader calls it.
        licences: licence -> samples under it.
        seconds: what the time went to, by name.
        more: what else the verb has to say, counts say; fields of the same line, none of which the engine has.
    """

    num_samples: int
    num_bytes: int
    sha256: str
    input_sha256: str
    dropped: tuple[Dropped, ...]
    licences: Mapping[str, int]
    seconds: Mapping[str, float]
    more: Mapping[str, JsonValue] = field(default_factory=dict)


class Maker(Protocol):
    """Does the work in one process, one unit at a time."""

    @property
    def described(self) -> Mapping[str, JsonValue]:
        """Who is at work, teachers and their digests say; told to the driver once, the same from every worker."""
        ...

    def make(
        self,
        unit: OpenUnit,
        file: IO[bytes],
        *,
        job: Job,
        folder: Path | None,
        progress: Callable[[int], object],
    ) -> Facts:
        """Makes the output of a unit.

        Args:
            unit: the input, open.
            file: empty, to write the output to; it is published when this returns and `num_samples` is not 0.
            job: names the unit and the configuration.
            folder: for temporary files, where there is one beside the output.
            progress: called with the number of items that are through since the last call.

        Raises:
            ValueError: trying again cannot help: the input is damaged.
            OSError, RuntimeError, MemoryError: trying again may help.
        """
        ...


class Task(Protocol):
    """What all workers of a run do, as plain data that can be pickled."""

    @property
    def num_threads(self) -> int:
        """Of torch in each worker."""
        ...

    @property
    def num_loaders(self) -> int:
        """Threads of each worker that read and decode."""
        ...

    @property
    def device(self) -> str:
        """Where networks run: "cpu", "cuda:0", ..."""
        ...

    def build(self) -> Maker:
        """Builds what does the work, in the process that is to do it.

        Raises:
            OSError, ValueError, ImportError: what it needs is not there.
        """
        ...


class Tally(Protocol):
    """What the index says of all units together, gathered unit by unit."""

    def add(self, facts: Facts) -> None:
        """Takes the facts of the next unit, in the order of the units."""
        ...

    def facts(self) -> Mapping[str, JsonValue]:
        """As `index.json` has it, in `config`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Verb:
    """How a verb is spoken of, and what it calls a fact.

    Attributes:
        name: `reinforce`, as on the command line.
        done: what its outputs are, `reinforced`.
        settings: what must not change within a folder, in words.
        check: raises ValueError when `Facts.more` is not what the verb writes; such a marker is not believed.
    """

    name: str
    done: str
    settings: str
    check: Callable[[Mapping[str, JsonValue]], object]
