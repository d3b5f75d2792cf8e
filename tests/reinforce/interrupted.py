"""Reinforces in processes that are killed at given moments, one after the other, until the last is left alone.

    python interrupted.py DATA OUT MOMENTS NAME=SOURCE...

MOMENTS is JSON. A moment is `["batch", n]`, when a teacher is asked for the n-th time, or `["flush", n]`, when the
process flushes a file or a folder to the disk for the n-th time. Prints how each process ended, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from pocketclip.reinforce import ReinforceConfig, reinforce, shard
from pocketclip.teachers import TeacherSpec


def main() -> None:
    torch.set_num_threads(1)
    data, out, moments = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    named = (text.split("=", 1) for text in sys.argv[4:])
    teachers = tuple(TeacherSpec(name=name, source=source) for name, source in named)
    config = ReinforceConfig(
        teachers=teachers, num_views=2, batch_size=8, splits=("train", "validation"), num_threads=1
    )
    ends = []
    for moment in [*moments, None]:
        child = os.fork()  # from a process without threads, where importing torch is over
        if child == 0:
            run(config, data=data, out=out, moment=moment)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ends))


def run(config: ReinforceConfig, *, data: Path, out: Path, moment: tuple[str, int] | None) -> None:
    kind, number = moment or ("never", 0)
    counts = {"batch": 0, "flush": 0}

    def reached(what: str) -> None:
        counts[what] += 1
        if what == kind and counts[what] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    flush, encoded = os.fsync, shard.encoded

    def fsync(descriptor: int) -> None:
        reached("flush")
        flush(descriptor)

    def counted(*arguments):
        reached("batch")
        return encoded(*arguments)

    os.fsync = fsync
    shard.encoded = counted
    code = 1
    try:
        reinforce(data, out, config=config)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


main()
