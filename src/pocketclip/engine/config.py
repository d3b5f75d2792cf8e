"""Where units are worked on, and how hard it is tried: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where shards are worked on, and how hard it is tried. No byte of the output depends on it.

    Attributes:
        kind: `in-process`, or `ray`: actors of a Ray cluster.
        num_loaders: threads of each worker that decode and augment.
        attempts: how often a shard is tried before it is left out for this run; what cannot succeed (a damaged input)
            is not tried again.
        min_workers: actors that are kept while there is work.
        max_workers: actors at most; None takes as many as the cluster's GPUs have room for, or one for every
            `num_threads` of its cores.
        gpus_per_worker: of an actor on CUDA; with 0.5 two share one, and one's pictures are decoded while the other's
            are embedded.
        straggler: a shard that takes so many times the median is given to a second worker when one is free; 0: never.
        address: of a running Ray cluster (`auto` or HOST:PORT); None starts one on this machine for this run.
        dashboard: start Ray's dashboard with a cluster of our own.
        store_options: of object stores, `endpoint` or `region` say.
    """

    kind: Literal["in-process", "ray"] = "in-process"
    num_loaders: int = 2
    attempts: int = 3
    min_workers: int = 1
    max_workers: int | None = None
    gpus_per_worker: float = 1.0
    straggler: float = 3.0
    address: str | None = None
    dashboard: bool = True
    store_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_loaders", "attempts", "min_workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise ValueError(
                f"max_workers must be at least min_workers ({self.min_workers}), got {self.max_workers}"
            )
        if self.gpus_per_worker <= 0 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise ValueError(
                f"gpus_per_worker must be a share of one or a whole number, got {self.gpus_per_worker}"
            )
        if self.straggler != 0 and not self.straggler > 1:
            raise ValueError(f"straggler must be above 1, or 0 for never, got {self.straggler}")

    @property
    def num_workers(self) -> int:
        """Workers that are counted on: one in-process, else as many as are asked for."""
        return 1 if self.kind == "in-process" else self.max_workers or self.min_workers
