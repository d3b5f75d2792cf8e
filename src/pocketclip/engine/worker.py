"""A worker turns units into published outputs, one at a time, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pocketclip.data.objects import Place, Store, open_store
from pocketclip.data.publish import PublishError
from pocketclip.data.sample import JsonValue
from pocketclip.engine.job import Done, Failed, Job, Outcome
from pocketclip.engine.marker import Marker, mark
from pocketclip.engine.task import Facts, Maker, Task
from pocketclip.engine.units import open_unit


@dataclass(frozen=True, kw_only=True)
class Order:
    """All that a worker has to know, as plain data from which it sets itself up.

    Attributes:
        task: what is done.
        source: store of the inputs.
        out: store of the outputs.
        engine: recorded in the markers.
    """

    task: Task
    source: Place
    out: Place
    engine: str


class Worker:
    """Turns units into outputs. Made where it runs; what does the work is built by `open`.

    Args:
        order: what all workers of the run do.
    """

    def __init__(self, order: Order) -> None:
        self._task = order.task
        self._engine = order.engine
        self._source: Store = open_store(order.source)
        self._out: Store = open_store(order.out)
        self._maker: Maker | None = None

    def open(self) -> Mapping[str, JsonValue]:
        """Builds what does the work, and says who that is.

        Raises:
            OSError, ValueError, ImportError: as the task's `build` does.
        """
        self._set_threads()
        self._maker = self._task.build()
        return self._maker.described

    def work(self, job: Job, *, progress: Callable[[int], object] = lambda _: None) -> Outcome:
        """Makes a unit's output, publishes it, and marks it done, last.

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
        assert self._maker is not None, "open it first"
        started = time.perf_counter()
        self._set_threads()
        with open_unit(job.unit, self._source) as unit, self._out.scratch() as file:
            folder = Path(file.name).parent if isinstance(file.name, str) else None
            facts = self._maker.make(unit, file, job=job, folder=folder, progress=progress)
            if facts.num_samples:
                self._out.put_once(job.unit.name, file)
        seconds = time.perf_counter() - started
        mark(self._out, self._marker(job, facts, seconds=seconds))
        return Done(
            name=job.unit.name,
            num_samples=facts.num_samples,
            num_dropped=len(facts.dropped),
            seconds=seconds,
        )

    def _marker(self, job: Job, facts: Facts, *, seconds: float) -> Marker:
        device = self._task.device
        return Marker(
            shard=job.unit.name,
            input=job.unit.file,
            input_bytes=job.unit.num_bytes,
            facts=facts,
            config_digest=job.config_digest,
            engine=self._engine,
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
