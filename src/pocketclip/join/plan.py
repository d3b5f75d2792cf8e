"""What is to be joined: the published shards, whose embeddings are in them, and what their views mean."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from pocketclip.data.foreign.published import PublishedSample, read_published
from pocketclip.data.foreign.published_teachers import PUBLISHED_TEACHERS, Generation
from pocketclip.data.foreign.published_views import SHIPPED_CONFIG, ViewLayout, layout_of, parse_config
from pocketclip.data.foreign.source import expand, is_pattern
from pocketclip.data.foreign.tars import Group, read_groups
from pocketclip.data.reinforcement import VERSION, TeacherRecord
from pocketclip.join.config import JoinConfig

SPLIT = "train"
CONFIG_FILE = "config.json"
_PROBED = 100  # samples of a shard that are asked which generation they are of


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
    paths, root = _shards(reinforcements)
    units = [
        Unit(
            name=f"{SPLIT}/{path.relative_to(root).with_suffix('.tar').as_posix()}",
            path=path,
            num_bytes=path.stat().st_size,
        )
        for path in paths
    ]
    layout = _layout(config.augment, root=root)
    teachers = config.teachers or PUBLISHED_TEACHERS[_generation(units, config=config)]
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


def _shards(reinforcements: str) -> tuple[list[Path], Path]:
    """The tars in order, and the folder that their names are relative to."""
    source = Path(reinforcements)
    if is_pattern(reinforcements):
        paths = [Path(name) for name in expand(reinforcements)]
        gone = [path for path in paths if not path.is_file()]
        if gone:
            raise FileNotFoundError(
                f"{len(gone)} of the {len(paths)} shards of {reinforcements} are not there, the first {gone[0]}"
            )
        if len(set(paths)) < len(paths):
            raise ValueError(f"{reinforcements} names a shard twice")
        return paths, Path(os.path.commonpath([path.parent for path in paths]))
    if source.is_file():
        return [source], source.parent
    if not source.is_dir():
        raise FileNotFoundError(f"{reinforcements}: no such file or folder")
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(source, followlinks=True)
        for name in names
        if name.casefold().endswith(".tar") and not name.startswith(".")
    ]
    if not found:
        raise ValueError(f"{reinforcements} holds no .tar of published reinforcements")
    return sorted(found), source


def _layout(augment: Path | None, *, root: Path) -> ViewLayout:
    path = augment or root / CONFIG_FILE
    if augment is None and not path.is_file():
        return layout_of(SHIPPED_CONFIG)
    return parse_config(path.read_bytes(), name=str(path))


def _generation(units: Sequence[Unit], *, config: JoinConfig) -> Generation:
    if config.generation != "auto":
        return config.generation
    for unit in units:
        groups = (group for group in read_groups(unit.path) if isinstance(group, Group))
        for group in islice(groups, _PROBED):
            published = read_published(group, synthetic=config.synthetic, tag=config.tag)
            if isinstance(published, PublishedSample) and published.generation is not None:
                return published.generation
    raise ValueError(
        f"{units[0].path.parent}: no sample says which teachers its embeddings are of: name them, or say v1 or v2"
    )
