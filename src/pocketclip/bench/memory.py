"""The most memory that a tower takes while it runs, in a process of its own: weights and activations."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing.context import BaseContext
from pathlib import Path

import torch

from pocketclip.bench.backends import bench_backends
from pocketclip.bench.subject import Setting, Subject

_CALLS = 3


def peak_memory_mb(subject: Subject, setting: Setting) -> float | None:
    """Megabytes (1e6 bytes) above what a process takes that has the libraries loaded; None where it died.

    On Linux the mark is reset after the model is loaded, so that what loading takes does not count. Elsewhere it does.
    On a graphics card it is what torch allocated there.
    """
    if setting.device.startswith("cuda"):
        return _on_card(subject, setting)
    # A process of its own for each: freed memory is not always given back.
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            return pool.submit(_in_child, subject.name, subject.source, subject.exported, setting).result()
        except BrokenProcessPool:  # out of memory, most likely
            return None


@cache
def _context() -> BaseContext:
    """New processes; on Linux they are forked from one that has the libraries and nothing else."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _in_child(name: str, source: str, exported: Path | None, setting: Setting) -> float:
    torch.set_num_threads(setting.threads)
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))  # threads and kernels are there before the mark is set
    before = _resident_mb()
    subject = Subject(name, source, exported=exported)
    call = bench_backends()[setting.backend].open(subject, setting)
    subject.release()
    gc.collect()
    _reset_mark()
    for _ in range(_CALLS):
        call()
    return max(0.0, _marked_mb() - before)


def _on_card(subject: Subject, setting: Setting) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call = bench_backends()[setting.backend].open(subject, setting)
    for _ in range(_CALLS):
        call()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _resident_mb() -> float:
    status = _status()
    return status["VmRSS"] if status else _marked_mb()


def _marked_mb() -> float:
    status = _status()
    if status:
        return status["VmHWM"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _status() -> dict[str, float]:
    """Linux's own account in megabytes; empty elsewhere."""
    path = Path("/proc/self/status")
    if not path.is_file():
        return {}
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        row[0].rstrip(":"): int(row[1]) * 1024 / 1e6 for row in rows if row and row[0] in ("VmRSS:", "VmHWM:")
    }


def _reset_mark() -> None:
    path = Path("/proc/self/clear_refs")
    if path.is_file():
        try:
            path.write_text("5", encoding="utf-8")
        except OSError:  # not allowed here: the mark then holds loading, too
            return
