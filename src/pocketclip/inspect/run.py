"""Looks at some samples of a folder, or of a shard, and draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pocketclip.data.codec_error import CodecError
from pocketclip.data.foreign.published_set import PublishedSet, open_published
from pocketclip.data.foreign.published_teachers import PUBLISHED_TEACHERS
from pocketclip.data.foreign.source import is_packed, is_pattern
from pocketclip.data.foreign.tars import Group, read_groups
from pocketclip.data.index import ShardIndex, read_index
from pocketclip.data.publish import publish_file
from pocketclip.data.reinforced import reinforcement_of
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement, TeacherRecord
from pocketclip.data.shard import ShardReader
from pocketclip.inspect.seen import Seen, see_packed, see_published, where
from pocketclip.inspect.sheet import draw_sheet
from pocketclip.inspect.summary import Summary, mean_captions

_PUBLISHED = ("paug.json", "npz", "pth.gz")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """What to look at.

    Attributes:
        num_samples: spread evenly over the folder.
        num_views: of each sample, spread evenly over the stored ones.
        keys: these samples instead.
        split: of a packed folder; None for its first.
        teachers: of a published set whose teachers are others than those of its generation.
        augment: `config.json` of a published set; None for the one beside its shards, else the shipped one.
    """

    num_samples: int = 8
    num_views: int = 4
    keys: tuple[str, ...] = ()
    split: str | None = None
    teachers: tuple[TeacherRecord, ...] = ()
    augment: Path | None = None

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.num_views < 1:
            raise ValueError("num_samples and num_views must be at least 1")


def inspect(source: str, *, out: Path | None = None, config: InspectConfig = InspectConfig()) -> Summary:
    """Draws a contact sheet of some samples, and says what the folder holds.

    Args:
        source: a packed or reinforced folder, a published set (folder, pattern, file), or one of our shards.
        out: the sheet, `*.png`; None for the summary alone.
        config: what to look at.

    Raises:
        ValueError: there is nothing to look at, a key is not there, or a shard is damaged.
        FileNotFoundError: there is no such place.
        PublishError: the sheet cannot be written.
    """
    if out is not None and Path(out).suffix.casefold() != ".png":
        raise ValueError(f"{out}: the sheet is a .png")
    summary, samples = _look(source, config=config)
    summary = replace(
        summary, captions=mean_captions(samples), looked_at=tuple(sample.key for sample in samples)
    )
    if out is not None:
        sheet = draw_sheet(samples, heading=str(source).rstrip("/"), facts=summary.facts())
        with publish_file(Path(out)) as file:
            sheet.save(file, "PNG", optimize=True)
    return summary


def _look(source: str, *, config: InspectConfig) -> tuple[Summary, list[Seen]]:
    path = Path(source)
    if not is_pattern(source) and path.is_dir() and is_packed(path):
        return _look_packed_folder(path, config=config)
    published = open_published(source, augment=config.augment)
    if _has_published_files(published.paths[0]):
        return _look_published(published, config=config)
    return _look_shards(published.paths, root=published.root, index=None, config=config)


def _look_packed_folder(folder: Path, *, config: InspectConfig) -> tuple[Summary, list[Seen]]:
    index = read_index(folder)
    split = config.split or next(iter(index.splits), "")
    if split not in index.splits:
        raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(index.splits)}")
    paths = [folder / entry.file for entry in index.splits[split]]
    summary, samples = _look_shards(paths, root=folder, index=index, config=config)
    return _with_index(summary, index), samples


def _look_shards(
    paths: Sequence[Path], *, root: Path, index: ShardIndex | None, config: InspectConfig
) -> tuple[Summary, list[Seen]]:
    samples: list[Seen] = []
    summary: Summary | None = None
    picks = _picks_by_key(paths, config.keys) if config.keys else _picks(paths, config.num_samples)
    for path, rows in picks:
        with ShardReader(path) as reader:
            block = reinforcement_of(reader) if reader.block(BLOCK_NAME) is not None else None
            if summary is None:
                summary = _summary(reader, block, paths)
            name = where(path, root)
            samples += see_packed(reader, block, rows, shard=name, num_views=config.num_views)
    assert summary is not None, "one pick or more"
    return summary, samples


def _picks(paths: Sequence[Path], num: int) -> Iterator[tuple[Path, list[int]]]:
    """So many samples, evenly over shards and then over the samples of each."""
    chosen = [paths[place] for place in _evenly(len(paths), num)]
    for place, path in enumerate(chosen):
        own = num // len(chosen) + (place < num % len(chosen))
        with ShardReader(path) as reader:
            yield path, _evenly(len(reader), own)


def _picks_by_key(paths: Sequence[Path], keys: Sequence[str]) -> Iterator[tuple[Path, list[int]]]:
    left = dict.fromkeys(keys)
    for path in paths:
        with ShardReader(path) as reader:
            rows = [row for row, key in enumerate(reader.keys) if key in left]
            for row in rows:
                left.pop(reader.keys[row], None)
        if rows:
            yield path, rows
        if not left:
            return
    raise ValueError(f"no shard has a sample {', '.join(left)}")


def _evenly(num: int, wanted: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, num - 1, min(num, wanted)).tolist()})


def _summary(reader: ShardReader, block: Reinforcement | None, paths: Sequence[Path]) -> Summary:
    num_bytes = sum(path.stat().st_size for path in paths)
    plain = Summary(
        layout="packed",
        num_shards=len(paths),
        num_samples=len(reader) if len(paths) == 1 else None,
        num_bytes=num_bytes,
    )
    if block is None:
        return plain
    stored = reader.block(BLOCK_NAME)
    assert stored is not None
    return replace(
        plain,
        layout="reinforced",
        teachers=block.header.teachers,
        codec=block.header.codec,
        errors=block.header.errors,
        num_views=block.num_views,
        augment=block.header.augment,
        row_bytes=len(stored) / len(block),
        num_dropped=len(block.header.dropped),
    )


def _with_index(summary: Summary, index: ShardIndex) -> Summary:
    """The summary with what only the index knows."""
    config: dict[str, Any] = dict(index.config)
    entries = [entry for split in index.splits.values() for entry in split]
    errors = config.get("errors")
    dropped = config.get("num_dropped", len(index.dropped))
    return replace(
        summary,
        splits={split: index.num_samples(split) for split in index.splits},
        num_shards=len(entries),
        num_samples=index.num_samples(),
        num_bytes=sum(entry.num_bytes for entry in entries),
        errors={table: CodecError(**error) for table, error in errors.items()} if errors else summary.errors,
        num_dropped=dropped,
    )


def _has_published_files(path: Path) -> bool:
    first = next(iter(read_groups(path, only=())), None)
    return isinstance(first, Group) and any(member.extension in _PUBLISHED for member in first.members)


def _look_published(published: PublishedSet, *, config: InspectConfig) -> tuple[Summary, list[Seen]]:
    generation = published.generation() or "v1"
    teachers = config.teachers or PUBLISHED_TEACHERS[generation]
    samples: list[Seen] = []
    for path, groups in _published_picks(published.paths, config=config):
        name = where(path, published.root)
        samples += [
            see_published(
                group, layout=published.layout, teachers=teachers, shard=name, num_views=config.num_views
            )
            for group in groups
        ]
    if not samples:
        wanted = f" of {', '.join(config.keys)}" if config.keys else ""
        raise ValueError(f"{published.root}: there is no sample{wanted} to look at")
    summary = Summary(
        layout="published" if config.teachers else f"published ({generation})",
        num_shards=len(published.paths),
        num_samples=None,
        num_bytes=sum(path.stat().st_size for path in published.paths),
        teachers=tuple(teachers),
        num_views=samples[0].num_views,
        augment=published.layout.spec,
    )
    return summary, samples


def _published_picks(paths: Sequence[Path], *, config: InspectConfig) -> Iterator[tuple[Path, list[Group]]]:
    """Samples by key, or the first ones of shards that are spread evenly."""
    if config.keys:
        left = dict.fromkeys(config.keys)
        for path in paths:
            found = [group for group in read_groups(path) if isinstance(group, Group) and group.key in left]
            for group in found:
                left.pop(group.key)
            if found:
                yield path, found
            if not left:
                return
        return
    chosen = [paths[place] for place in _evenly(len(paths), config.num_samples)]
    for place, path in enumerate(chosen):
        own = config.num_samples // len(chosen) + (place < config.num_samples % len(chosen))
        yield path, list(islice((group for group in read_groups(path) if isinstance(group, Group)), own))
