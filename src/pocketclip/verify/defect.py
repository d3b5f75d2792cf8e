"""What is wrong with a shard: where, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from pocketclip.data.sample import JsonValue


@dataclass(frozen=True, kw_only=True)
class Defect:
    """Something wrong.

    Attributes:
        shard: its name in the folder.
        key: of the sample; empty for the shard itself.
        reason: "kind: details"; reports count by kind.
    """

    shard: str
    key: str
    reason: str

    @property
    def kind(self) -> str:
        """Of what kind it is."""
        return self.reason.partition(":")[0]

    def to_json(self) -> dict[str, JsonValue]:
        """As a line of a list."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """What was found in one shard.

    Attributes:
        shard: its name in the folder.
        layout: packed, reinforced, published, or empty where it could not be told.
        digest: of the reinforcement's configuration; empty without one.
        num_samples: in it.
        num_checked: samples that were looked into.
        num_views: stored views that were replayed.
        num_texts: captions of the samples that were looked into.
        key_hashes: 64 bits of a hash of every key.
        defects: what is wrong.
    """

    shard: str
    layout: str = ""
    digest: str = ""
    num_samples: int = 0
    num_checked: int = 0
    num_views: int = 0
    num_texts: int = 0
    key_hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64), repr=False)
    defects: tuple[Defect, ...] = ()


@dataclass
class Findings:
    """Gathers defects and counts of a shard."""

    shard: str
    defects: list[Defect] = field(default_factory=list)
    num_views: int = 0
    num_texts: int = 0

    def add(self, reason: str, *, key: str = "") -> None:
        """Notes a defect."""
        self.defects.append(Defect(shard=self.shard, key=key, reason=reason))


def picked(num: int, *, sample: int | None) -> np.ndarray:
    """Numbers of the samples to look into: all, or so many of them evenly."""
    if sample is None or sample >= num:
        return np.arange(num)
    return np.unique(np.linspace(0, num - 1, sample).round().astype(int))


def duplicates(keys: Iterable[str]) -> list[str]:
    """Keys that are there more than once, each once, in order."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for key in keys:
        if key in seen:
            twice[key] = None
        seen.add(key)
    return list(twice)
