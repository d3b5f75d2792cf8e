"""Joins in processes that are killed at given moments, one after the other, until the last is left alone.

    python interrupted.py REINFORCEMENTS OUT MOMENTS

MOMENTS is JSON. A moment is `["picture", n]`, when the n-th downloaded picture is in its file, or `["flush", n]`, when
the process flushes a file or a folder to the disk for the n-th time. Prints how each process ended, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from pocketclip.join import DownloadConfig, PictureSources, fetch, join


def main() -> None:
    source, out, moments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    ends = []
    for moment in [*moments, None]:
        child = os.fork()
        if child == 0:
            run(source, out, moment=moment)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ends))


def run(source: str, out: Path, *, moment: tuple[str, int] | None) -> None:
    kind, number = moment or ("never", 0)
    counts = {"picture": 0, "flush": 0}

    def reached(what: str) -> None:
        counts[what] += 1
        if what == kind and counts[what] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    flush, got = os.fsync, fetch.Download

    def fsync(descriptor: int) -> None:
        reached("flush")
        flush(descriptor)

    def counted(**facts):
        if "reason" not in facts:
            reached("picture")
        return got(**facts)

    os.fsync = fsync
    fetch.Download = counted
    code = 1
    try:
        config = DownloadConfig(connections=4, timeout_s=2.0, backoff_s=0.01, max_bytes=100_000)
        join(source, out, pictures=PictureSources(download=config, num_threads=2))
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


main()
