"""Processes that build batches ahead, their arrays in memory that is shared.

A batch is a pure function of its plan, so that it does not matter which process builds it, nor whether the first one it
was given to was killed over it.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pocketclip.data.batch import Batch, StreamConfig
from pocketclip.data.builder import KnownShard, Plan
from pocketclip.data.slots import Parcel, Slot, open_memory
from pocketclip.data.tokenize import Tokenizer
from pocketclip.data.worker import Job

_WORKER = ("-m", "pocketclip.data.worker")
AHEAD = 2
"""Batches that each process has to do at a time: one that it builds and one that waits."""
_SLOTS = AHEAD + 1  # and one that is in use
_MOST_DEATHS = 3  # of one process after another, without a batch in between
_PATIENCE_S = 10.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Workers:
    """A pool of processes; `data/worker.py` is what they run.

    Args:
        shards: files written by `pocketclip pack` or `pocketclip reinforce`.
        config: how samples become batches; `num_workers` of it are started.
        tokenizer: of the model to train.
        extra_px: sides in pixels at which every view is made too.
        known: of each shard.
        batch_bytes: what a batch takes at most.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        *,
        config: StreamConfig,
        tokenizer: Tokenizer,
        extra_px: Sequence[int],
        known: Sequence[KnownShard],
        batch_bytes: int,
    ) -> None:
        unit = mmap.ALLOCATIONGRANULARITY
        slot_bytes = -(-max(batch_bytes, 1) // unit) * unit
        self._places = _share(known)
        job = Job(
            shards=tuple(Path(path) for path in shards),
            config=replace(config, cache_mb=config.cache_mb // config.num_workers),
            tokenizer=tokenizer,
            extra_px=tuple(extra_px),
            stamps=tuple(shard.stamp for shard in known),
            counts=tuple(len(shard.places) for shard in known),
            places=self._places,
            memory=-1,
            slots=tuple((number * slot_bytes, slot_bytes) for number in range(_SLOTS)),
        )
        self._workers = [_Worker(job) for _ in range(config.num_workers)]

    def submit(self, plan: Plan) -> Pending:
        """Has a batch built by the process with the least to do."""
        return min(self._workers, key=_Worker.num_pending).submit(plan)

    def close(self) -> None:
        """Ends the processes; batches that were taken stay."""
        for worker in self._workers:
            worker.close()
        if self._places >= 0:
            os.close(self._places)
            self._places = -1


def _share(known: Sequence[KnownShard]) -> int:
    """The places of all samples, in memory that every process maps: at scale they are too many for each to have."""
    num_bytes = sum(shard.places.nbytes for shard in known)
    memory = open_memory(num_bytes)
    slot = Slot(memory, start=0, num_bytes=num_bytes)
    np.concatenate([shard.places for shard in known], out=slot.empty((num_bytes // 32, 4), np.int64))
    return memory


class Pending:
    """A batch that is being built."""

    def __init__(self, worker: _Worker, plan: Plan, slot: int) -> None:
        self.plan = plan
        self.slot = slot
        self._worker = worker
        self.outcome: Batch | ValueError | OSError | None = None

    def result(self) -> Batch:
        """The batch, when it is there.

        Raises:
            ValueError: none of its samples can be used; shards that are damaged.
            OSError: a shard is gone or was changed.
            ChildProcessError: processes die one after the other.
        """
        while self.outcome is None:
            self._worker.receive()
        if isinstance(self.outcome, Batch):
            return self.outcome
        raise self.outcome


class _Worker:
    """One process, and its successors where it is killed."""

    def __init__(self, job: Job) -> None:
        memory = open_memory(sum(length for _, length in job.slots))
        self._job = replace(job, memory=memory)
        self._slots = [Slot(memory, start=start, num_bytes=length) for start, length in job.slots]
        self._free = list(range(len(self._slots)))
        self._pending: deque[Pending] = deque()
        self._num_deaths = 0
        self._process, self._connection = self._start()

    def num_pending(self) -> int:
        return len(self._pending)

    def submit(self, plan: Plan) -> Pending:
        while not self._free:  # of batches that were asked for and not taken
            self.receive()
        pending = Pending(self, plan, self._free.pop())
        self._pending.append(pending)
        self._send(pending)
        return pending

    def receive(self) -> None:
        """Waits for the batch that was submitted first."""
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._succeed()
            return
        self._num_deaths = 0
        pending = self._pending.popleft()
        pending.outcome = self._unpacked(answer, slot=pending.slot) if isinstance(answer, Parcel) else answer
        if not isinstance(answer, Parcel):
            self._free.append(pending.slot)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        if self._job.memory >= 0:
            os.close(self._job.memory)
            self._job = replace(self._job, memory=-1)

    def _unpacked(self, parcel: Parcel, *, slot: int) -> Batch:
        # While a batch is in use the next one leaves its slot, or there would be none left for somebody who keeps them.
        num_used = len(self._slots) - len(self._free) - len(self._pending) - 1
        if num_used:
            batch = self._slots[slot].unpack(parcel)
            self._free.append(slot)
        else:
            batch = self._slots[slot].lend(parcel, returned=lambda: self._free.append(slot))
        assert isinstance(batch, Batch)
        return batch

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        own, other = Pipe()
        searched = os.pathsep.join(path for path in sys.path if path)
        process = subprocess.Popen(
            [sys.executable, "-P", *_WORKER, str(other.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(other.fileno(), self._job.memory, self._job.places),
            process_group=0,  # Ctrl-C is for the parent
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": searched},
        )
        other.close()
        with suppress(OSError):  # it is gone already: `receive` sees that
            own.send(self._job)
        return process, own

    def _send(self, pending: Pending) -> None:
        with suppress(OSError):  # `receive` sees that it is gone, and its successor is sent everything
            self._connection.send((pending.plan, pending.slot))

    def _succeed(self) -> None:
        """Puts another process in the place of one that has ended, and gives it all that is pending."""
        status = self._status()
        self._connection.close()
        if status >= 0:
            raise ChildProcessError(
                f"a process that builds batches has failed (exit status {status}; what it printed is above): see to "
                "that, or set stream.num_workers to 0; started again, the run goes on from its last saved state"
            )
        self._num_deaths += 1
        if self._num_deaths >= _MOST_DEATHS:
            raise ChildProcessError(
                f"{self._num_deaths} processes that build batches were killed one after the other, the last by "
                f"{_describe(-status)}: lower stream.num_workers or stream.batch_size; started again, the run goes on "
                "from its last saved state"
            )
        self._process, self._connection = self._start()
        for pending in self._pending:
            self._send(pending)
        warnings.warn(
            f"a process that builds batches was killed by {_describe(-status)}; another one has taken its place",
            stacklevel=2,
        )

    def _status(self) -> int:
        """The exit status of the process, negative for a signal; it is ended if only its connection has."""
        try:
            return self._process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _describe(number: int) -> str:
    name = signal.Signals(number).name
    reason = {"SIGKILL": "often for want of memory", "SIGBUS": "a shard was cut short while it was read"}.get(
        name
    )
    return f"{name} ({reason})" if reason else name
