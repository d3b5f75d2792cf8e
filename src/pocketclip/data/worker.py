"""A process that builds batches, for `data/workers.py`: `python -m pocketclip.data.worker DESCRIPTOR`.

It is started afresh rather than by multiprocessing, which would import its parent's main module, torch and all.
"""

from __future__ import annotations

import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pocketclip.data.batch import StreamConfig
from pocketclip.data.builder import BatchBuilder, KnownShard
from pocketclip.data.slots import Slot
from pocketclip.data.tokenize import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a worker needs to know, the first message that it gets.

    Attributes:
        shards: as of `BatchBuilder`, as are the next three.
        config: likewise.
        tokenizer: likewise.
        extra_px: likewise.
        stamps: of the shards, as the parent found them.
        counts: samples of each shard.
        places: descriptor of memory with the places of all samples, int64 [N, 4].
        memory: descriptor of the memory that is shared with the parent.
        slots: start and length in bytes of each slot in it.
    """

    shards: tuple[Path, ...]
    config: StreamConfig
    tokenizer: Tokenizer
    extra_px: tuple[int, ...]
    stamps: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]
    places: int
    memory: int
    slots: tuple[tuple[int, int], ...]


def main() -> None:
    """Builds what it is asked to until the parent hangs up."""
    # The parent decides when to stop; a signal to the whole group is the parent's to answer.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    try:
        _serve(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _serve(connection: Connection) -> None:
    job: Job = connection.recv()
    slots = [Slot(job.memory, start=start, num_bytes=length) for start, length in job.slots]
    builder: BatchBuilder | None = None
    while True:
        plan, slot = connection.recv()
        try:
            # Here and not before the loop: what is wrong with the shards is an answer, too.
            builder = builder or _builder(job)
            slots[slot].clear()
            batch = builder.build(plan, empty=slots[slot].empty)
        except (ValueError, OSError) as error:
            error.add_note(f"In a process that builds batches:\n{traceback.format_exc()}")
            connection.send(error)
            continue
        connection.send(slots[slot].pack(batch))


def _builder(job: Job) -> BatchBuilder:
    num_samples = sum(job.counts)
    slot = Slot(job.places, start=0, num_bytes=32 * num_samples)
    places_N4 = slot.empty((num_samples, 4), np.int64)
    parts = np.split(places_N4, np.cumsum(job.counts)[:-1])
    known = [KnownShard(part, stamp) for part, stamp in zip(parts, job.stamps, strict=True)]
    return BatchBuilder(
        job.shards, config=job.config, tokenizer=job.tokenizer, extra_px=job.extra_px, known=known
    )


if __name__ == "__main__":
    main()
