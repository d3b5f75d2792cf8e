"""A crew of Ray actors: each holds a maker and does one job at a time.

Ray places actors on machines and tells when one has died; what is done, and by whom, is decided here. Nothing but jobs
and outcomes, a few hundred bytes, travels between driver and actors: they read inputs and publish outputs themselves.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pocketclip.data.sample import JsonValue
from pocketclip.data.scratch import scratch_folder
from pocketclip.engine.config import EngineConfig
from pocketclip.engine.job import Failed, Job, Outcome
from pocketclip.engine.worker import Order, Worker

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

# Ray starts workers ahead and waits for them. On a busy machine it gives them up after a minute, and waits for ever.
_PATIENT = {"prestart_worker_first_driver": False, "worker_register_timeout_seconds": 600}
_PLASMA_BYTES = 80 << 20  # about the least that Ray takes
_STARTS = 3  # tries
_LOOK_S = 1.0  # between two looks at signals
_COLOUR = re.compile(r"\x1b\[\d+m")
_SHOWN = 200  # characters of what Ray has to say
_FRUITLESS = 3  # actors in a row that fail to start, before the run gives up


class RayCrew:
    """Actors of a Ray cluster. See `driver.Crew`.

    A cluster of our own lives on this machine and ends with the run. Its access token is made for the run and kept in
    the environment, so that Ray writes nothing into the home folder.

    Args:
        order: what is done.
        engine: how many actors, and where.

    Raises:
        ImportError: the extra `ray` is not installed.
    """

    def __init__(self, order: Order, *, engine: EngineConfig) -> None:
        if engine.address is None:  # with a token at hand Ray asks for it, unless told otherwise
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            import ray.exceptions
        except ImportError as error:
            raise ImportError(
                "--engine ray needs ray, not installed here: pip install 'pocketclip[ray]'"
            ) from error
        self._ray: Any = ray  # its types say little about actors
        self._order = order
        self._task = order.task
        self._engine = engine
        self._max_workers = engine.max_workers or engine.min_workers
        self._resources = ExitStack()
        self._starting: dict[ObjectRef, ActorHandle] = {}
        self._idle: deque[ActorHandle] = deque()
        self._busy: dict[ObjectRef, tuple[ActorHandle, Job]] = {}
        self._fruitless = 0

    def open(self) -> Mapping[str, JsonValue]:
        """See `Crew`. Returns when the first actor is ready."""
        self._connect()
        while len(self._starting) < self._engine.min_workers:
            self._start()
        while True:
            for ref in self._ended(self._starting, seconds=_LOOK_S):
                described = self._started(ref)
                if described is not None:
                    return described

    def has_room(self) -> bool:
        """See `Crew`."""
        return bool(self._idle)

    def submit(self, job: Job) -> None:
        """See `Crew`."""
        actor = self._idle.popleft()
        self._busy[actor.work.remote(job)] = (actor, job)

    def wait(self, *, seconds: float, is_work_left: bool) -> list[Outcome]:
        """See `Crew`."""
        outcomes: list[Outcome] = []
        for ref in self._ended({**self._starting, **self._busy}, seconds=seconds):
            if ref in self._starting:
                self._started(ref)
            else:
                outcomes.append(self._outcome(ref))
        self._adjust(is_work_left=is_work_left)
        return outcomes

    def describe(self) -> str:
        """See `Crew`."""
        num = len(self._idle) + len(self._busy)
        return f"{num} {'worker' if num == 1 else 'workers'}"

    def close(self) -> None:
        """See `Crew`. Actors are killed, a cluster of our own ends."""
        for actor in (*self._starting.values(), *self._idle, *(actor for actor, _ in self._busy.values())):
            self._ray.kill(actor)
        self._resources.close()

    def _connect(self) -> None:
        """Joins the cluster, or starts one."""
        engine = self._engine
        # Ray prints what its daemon has to say on standard output, which is for results.
        self._resources.enter_context(redirect_stdout(sys.stderr))
        quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        handler = signal.getsignal(signal.SIGTERM)
        if self._ray.is_initialized():
            link = ""
        elif engine.address is not None:
            link = self._ray.init(address=engine.address, **quiet).dashboard_url
            self._resources.callback(self._ray.shutdown)
        else:
            link = self._start_cluster(**quiet)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
        if engine.max_workers is None:
            self._max_workers = max(engine.min_workers, self._room_for())
        note = f"{engine.min_workers} to {self._max_workers} workers on Ray"
        if link:
            note += f", dashboard http://{link} (its token: {os.environ.get('RAY_AUTH_TOKEN', 'none')})"
        tqdm.write(note, file=sys.stderr)

    def _start_cluster(self, **quiet: Any) -> str:  # noqa: ANN401
        """A cluster of our own; returns the address of its dashboard, if it has one."""
        folder = self._resources.enter_context(scratch_folder("ray"))
        self._resources.callback(self._ray.shutdown)
        for left in reversed(range(_STARTS)):
            try:
                context = self._ray.init(
                    address="local",
                    num_cpus=self._num_cpus(),
                    include_dashboard=self._engine.dashboard,
                    dashboard_host="127.0.0.1",
                    object_store_memory=_PLASMA_BYTES,
                    _temp_dir=str(folder),
                    _system_config=_PATIENT,
                    **quiet,
                )
            except Exception as error:  # on a busy machine Ray gives up after 30 s, with no more than this
                self._ray.shutdown()
                if not left:
                    raise OSError(f"Ray does not start on this machine ({_one_line(error)})") from error
            else:
                return context.dashboard_url or ""
        raise AssertionError("the last try returns or raises")

    def _num_cpus(self) -> int:
        """Cores that our own cluster is told it has: this machine's, or as many as were asked for."""
        least = self._engine.max_workers or self._engine.min_workers
        return max(os.cpu_count() or 1, least * self._cores())

    def _cores(self) -> int:
        """Of an actor."""
        return self._task.num_threads if self._task.device == "cpu" else self._task.num_loaders

    def _room_for(self) -> int:
        """Actors that the cluster has room for now."""
        resources = self._ray.cluster_resources()
        if self._task.device == "cpu":
            return int(resources.get("CPU", 0)) // self._cores()
        return int(resources.get("GPU", 0) / self._engine.gpus_per_worker)

    def _start(self) -> None:
        gpus = 0 if self._task.device in ("cpu", "mps") else self._engine.gpus_per_worker
        kind = self._ray.remote(num_cpus=self._cores(), num_gpus=gpus, max_restarts=0)(Worker)
        actor = kind.remote(self._order)
        self._starting[actor.open.remote()] = actor

    def _started(self, ref: ObjectRef) -> Mapping[str, JsonValue] | None:
        """Takes in an actor that has built its maker; None when it could not."""
        actor = self._starting.pop(ref)
        try:
            described = self._result(ref)
        except self._ray.exceptions.RayError as error:
            self._fruitless += 1
            if self._fruitless >= _FRUITLESS:
                raise OSError(
                    f"{self._fruitless} Ray actors in a row died as they started, the last: {_one_line(error)}"
                ) from error
            self._start()
            return None
        self._fruitless = 0
        self._idle.append(actor)
        return described

    def _outcome(self, ref: ObjectRef) -> Outcome:
        actor, job = self._busy.pop(ref)
        try:
            outcome = self._result(ref)
        except self._ray.exceptions.RayError as error:
            return Failed(name=job.unit.name, reason=f"its worker died ({_one_line(error)})", may_pass=True)
        if isinstance(outcome, Failed) and outcome.is_broken:
            self._ray.kill(actor)
        else:
            self._idle.append(actor)
        return outcome

    def _result(self, ref: ObjectRef) -> Any:  # noqa: ANN401
        """What an actor returns or raises; RayError where it died."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def _ended(self, refs: dict, *, seconds: float) -> list[ObjectRef]:
        if not refs:
            return []
        ended, _ = self._ray.wait(list(refs), num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(list(refs), num_returns=len(refs), timeout=0)
        return list({*ended, *more})

    def _adjust(self, *, is_work_left: bool) -> None:
        """One actor more while all are busy and work is left; one idle actor at most when none is."""
        num = len(self._starting) + len(self._idle) + len(self._busy)
        is_short = num < self._engine.min_workers
        all_busy = not self._idle and not self._starting and num < self._max_workers
        if is_work_left and (is_short or all_busy):
            self._start()
        while not is_work_left and len(self._idle) > 1:
            self._ray.kill(self._idle.pop())


def _one_line(error: BaseException) -> str:
    text = _COLOUR.sub("", str(error)).strip()
    if "its creation task" in text:  # a traceback, whose last line says what was wrong
        text = text.splitlines()[-1]
    text = " ".join(text.split()) or type(error).__name__
    text = text.rpartition("The actor is dead because ")[2]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
