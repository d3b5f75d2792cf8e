"""What is to be joined: the published shards, whose embeddings are in them, and what their views mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pocketclip.data.foreign.published_set import PublishedSet, open_published
from pocketclip.data.foreign.published_teachers import PUBLISHED_TEACHERS, Generation
from pocketclip.data.foreign.published_views import ViewLayout
from pocketclip.data.reinforcement import VERSION, TeacherRecord
from pocketclip.join.config import JoinConfig

SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One published shard.

    Attributes:
        name: of ours, `train/NAME.tar`; folders of the published set are kept.
        path: of the published one.
        num_bytes: its size.
    """

    name: str
    path: Path
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is to be joined.

    Attributes:
        source: as it was named.
        units: the shards in order.
        teachers: whose the columns are.
        layout: of the views.
        config_digest: of configuration, teachers and layout.
        data_digest: of the shards' names and sizes.
    """

    source: str
    units: Sequence[Unit] = field(repr=False)
    teachers: tuple[TeacherRecord, ...]
    layout: ViewLayout
    config_digest: str
    data_digest: str


def plan_join(reinforcements: str, *, config: JoinConfig) -> Plan:
    """Finds the published shards and what they hold.

    Args:
        reinforcements: a folder of tars, a pattern with ranges in braces, or one tar.
        config: the join.

    Raises:
        FileNotFoundError: a shard is not there.
        ValueError: there are none, their views cannot be replayed, or whose embeddings they hold cannot be told.
    """
    published = open_published(reinforcements, augment=config.augment)
    units = [
        Unit(
            name=f"{SPLIT}/{path.relative_to(published.root).with_suffix('.tar').as_posix()}",
            path=path,
            num_bytes=path.stat().st_size,
        )
        for path in published.paths
    ]
    layout = published.layout
    teachers = config.teachers or PUBLISHED_TEACHERS[_generation(published, config=config)]
    described = {
        "version": VERSION,
        "augment": layout.spec.to_json(),
        "transforms": layout.transforms,
        "teachers": [asdict(teacher) for teacher in teachers],
        "synthetic": config.synthetic,
        "tag": config.tag,
        "codec": config.codec,
        "sha256": config.sha256,
        "longest_px": config.longest_px,
    }
    listed = "\n".join(f"{unit.name} {unit.num_bytes}" for unit in units)
    return Plan(
        source=reinforcements,
        units=units,
        teachers=teachers,
        layout=layout,
        config_digest=hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest(),
        data_digest=hashlib.sha256(listed.encode(errors="surrogatepass")).hexdigest(),
    )


def _generation(published: PublishedSet, *, config: JoinConfig) -> Generation:
    if config.generation != "auto":
        return config.generation
    found = published.generation(synthetic=config.synthetic, tag=config.tag)
    if found is None:
        raise ValueError(
            f"{published.root}: no sample says which teachers its embeddings are of: name them, or say v1 or v2"
        )
    return found
