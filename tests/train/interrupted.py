"""Trains in processes that are killed at given moments, one after the other, until the last is left alone.

    python interrupted.py JOBS

JOBS is a JSON list of `{"config": ..., "data": ..., "out": ..., "moments": ...}`. A moment is `["step", n]`, after n
steps, or `["flush", n]`, when the process flushes a file to the disk for the n-th time: written but not yet renamed, or
renamed but its folder not yet flushed. Prints for each job how its processes ended, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from pocketclip.checkpoint import structure
from pocketclip.train import TrainConfig, train


def main() -> None:
    torch.set_num_threads(1)
    warm_up()
    print(json.dumps([ends(**job) for job in json.loads(sys.argv[1])]))


def ends(*, config: dict, data: str, out: str, moments: list) -> list[int]:
    codes = []
    for moment in [*moments, None]:
        child = os.fork()  # from a process without threads, where importing torch is over
        if child == 0:
            run(structure(config, TrainConfig), data=Path(data), out=Path(out), moment=moment)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return codes


def warm_up() -> None:
    """The first step imports much of torch: once here rather than in every child."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.sum().backward()
    optimizer.step()


def run(config: TrainConfig, *, data: Path, out: Path, moment: tuple[str, int] | None) -> None:
    kind, number = moment or ("never", 0)
    counts = {"step": 0, "flush": 0}

    def reached(what: str) -> None:
        counts[what] += 1
        if what == kind and counts[what] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    flush = os.fsync

    def fsync(descriptor: int) -> None:
        reached("flush")
        flush(descriptor)

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        reached("step")
        return {"score": 0.0}

    os.fsync = fsync
    code = 1
    try:
        train(config, data=data, out=out, evaluate=evaluate)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


main()
