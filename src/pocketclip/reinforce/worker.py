"""A worker holds the teachers and turns units into published shards, one at a time, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from pocketclip.data.objects import Place, Store, open_store
from pocketclip.data.publish import PublishError
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.data.sample import JsonValue
from pocketclip.reinforce.config import ReinforceConfig
from pocketclip.reinforce.ledger import Ledger, Marker
from pocketclip.reinforce.shard import ShardFacts, reinforce_shard
from pocketclip.reinforce.units import Unit, open_unit
from pocketclip.reinforce.views import ShardRequest
from pocketclip.teachers.captioner import Captioner, build_captioner
from pocketclip.teachers.teacher import Teacher, build_teacher


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every worker of a run does, as plain data from which it sets itself up.

    Attributes:
        config: the reinforcement; `num_threads` is a number.
        source: store of the inputs.
        out: store of the outputs.
        engine: recorded in the markers.
        num_loaders: threads that decode and augment.
    """

    config: ReinforceConfig
    source: Place
    out: Place
    engine: str
    num_loaders: int

    @property
    def num_threads(self) -> int:
        """Of torch in each worker."""
        return self.config.num_threads or 1


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Who the teachers and captioners turned out to be."""

    teachers: tuple[TeacherRecord, ...]
    captioners: Mapping[str, str]  # name -> digest
    described: Sequence[Mapping[str, JsonValue]] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One try at a unit.

    Attributes:
        unit: the input.
        config_digest: recorded in the shard.
        reasons: why earlier tries failed.
    """

    unit: Unit
    config_digest: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Done:
    """A unit that has its shard and its marker."""

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


class Worker:
    """Turns units into shards. Made where it runs; its teachers are built by `open`.

    Args:
        task: what all workers of the run do.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._source: Store = open_store(task.source)
        self._out: Store = open_store(task.out)
        self._ledger = Ledger(self._out)
        self._teachers: list[Teacher] = []
        self._captioners: list[Captioner] = []

    def open(self) -> Ensemble:
        """Builds teachers and captioners.

        Raises:
            OSError, ValueError, ImportError: as `build_teacher` and `build_captioner` do.
        """
        config = self._task.config
        self._set_threads()
        self._teachers = [
            build_teacher(spec, device=config.device, precision=config.precision, compiled=config.compiled)
            for spec in config.teachers
        ]
        self._captioners = [
            build_captioner(spec, device=config.device, precision=config.precision)
            for spec in config.captioners
        ]
        return Ensemble(
            teachers=tuple(teacher.record for teacher in self._teachers),
            captioners={captioner.name: captioner.digest for captioner in self._captioners},
            described=[dict(one.describe()) for one in (*self._teachers, *self._captioners)],
        )

    def work(self, job: Job, *, progress: Callable[[int], object] = lambda _: None) -> Outcome:
        """Makes a unit's shard, publishes it, and marks it done, last.

        What can be wrong with an input, a place or the memory is an outcome; everything else is raised.
        """
        try:
            return self._work(job, progress=progress)
        except PublishError as error:
            return _failed(job, error, may_pass=False, ends_run=True)
        except (FileExistsError, ValueError) as error:
            return _failed(job, error, may_pass=False)
        except OSError as error:
            return _failed(job, error, may_pass=True)
        except (RuntimeError, MemoryError) as error:
            return _failed(job, error, may_pass=True, is_broken=True)

    def _work(self, job: Job, *, progress: Callable[[int], object]) -> Done:
        started = time.perf_counter()
        self._set_threads()
        config = self._task.config
        request = ShardRequest(
            num_views=config.num_views,
            augment=config.augment,
            codec=config.codec,
            seed=config.seed,
            batch_size=config.batch_size,
            config_digest=job.config_digest,
            num_loaders=self._task.num_loaders,
        )
        with open_unit(job.unit, self._source) as unit, self._out.scratch() as file:
            facts = reinforce_shard(
                unit,
                file,
                name=job.unit.name,
                teachers=self._teachers,
                captioners=self._captioners,
                request=request,
                folder=Path(file.name).parent if isinstance(file.name, str) else None,
                progress=progress,
            )
            if facts.num_samples:
                self._out.put_once(job.unit.name, file)
        seconds = time.perf_counter() - started
        self._ledger.mark(self._marker(job, facts, seconds=seconds))
        return Done(
            name=job.unit.name,
            num_samples=facts.num_samples,
            num_dropped=len(facts.dropped),
            seconds=seconds,
        )

    def _marker(self, job: Job, facts: ShardFacts, *, seconds: float) -> Marker:
        device = self._task.config.device
        return Marker(
            shard=job.unit.name,
            input=job.unit.file,
            input_bytes=job.unit.num_bytes,
            facts=facts,
            config_digest=job.config_digest,
            teachers={teacher.record.name: teacher.record.digest for teacher in self._teachers},
            captioners={captioner.name: captioner.digest for captioner in self._captioners},
            engine=self._task.engine,
            device=torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
            seconds=seconds,
            earlier_failures=job.reasons,
        )

    def _set_threads(self) -> None:
        # Sums depend on it. It is a setting of the thread that computes, which need not be the one that opened.
        torch.set_num_threads(self._task.num_threads)


def _failed(
    job: Job, error: BaseException, *, may_pass: bool, ends_run: bool = False, is_broken: bool = False
) -> Failed:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RuntimeError | MemoryError):
        text = f"{type(error).__name__}: {text}"
    return Failed(name=job.unit.name, reason=text, may_pass=may_pass, ends_run=ends_run, is_broken=is_broken)
