"""Bench: models in; latency, throughput, memory and arithmetic out, comparable on a noisy machine."""

from __future__ import annotations

from pocketclip.bench.config import BenchConfig
from pocketclip.bench.report import BenchReport, Contestant, Machine, Peak, Row
from pocketclip.bench.run import bench

__all__ = [
    "BenchConfig",
    "BenchReport",
    "Contestant",
    "Machine",
    "Peak",
    "Row",
    "bench",
]
