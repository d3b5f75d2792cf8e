"""Looks into every shard of a folder, several at a time, and never stops at the first defect."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from pocketclip.data.foreign.published_set import open_published
from pocketclip.data.foreign.published_teachers import PUBLISHED_TEACHERS, Generation
from pocketclip.data.foreign.source import is_packed, is_pattern
from pocketclip.data.foreign.tars import Group, read_groups
from pocketclip.data.index import read_index
from pocketclip.data.publish import publish_file
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.data.shard import ShardReader
from pocketclip.verify.defect import Defect, ShardCheck
from pocketclip.verify.packed import check_packed, hash_keys
from pocketclip.verify.published import PublishedSettings, check_published, is_published

KEPT = 1000
"""Defects that a report holds; `VerifyConfig.list_in` gets them all."""

_Check = Callable[[], ShardCheck]


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What is looked into.

    Attributes:
        splits: of a packed folder; empty for all.
        sample: samples of each shard that are looked into, spread evenly; None for all.
        workers: processes.
        list_in: file that gets every defect as a line of JSON; None for none.
        generation: of a published set; "auto" tells by where the rows of synthetic captions are.
        teachers: of a published set whose teachers are others; empty for those of its generation.
        augment: `config.json` of a published set; None for the one beside its shards, else the shipped one.
        check_sha256: compare a published set's pictures with their published hashes.
    """

    splits: tuple[str, ...] = ()
    sample: int | None = None
    workers: int = 1
    list_in: Path | None = None
    generation: Generation | str = "auto"
    teachers: tuple[TeacherRecord, ...] = ()
    augment: Path | None = None
    check_sha256: bool = True

    def __post_init__(self) -> None:
        if self.workers < 1 or (self.sample is not None and self.sample < 1):
            raise ValueError("workers and sample must be at least 1")


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was found.

    Attributes:
        layout: packed, reinforced, published; several with "and".
        num_shards: that were looked into.
        num_samples: in them.
        num_checked: samples that were looked into.
        num_views: stored views that were replayed.
        num_texts: captions of the samples that were looked into.
        num_defects: in all.
        kinds: how many of which kind.
        defects: the first of them.
    """

    layout: str
    num_shards: int
    num_samples: int
    num_checked: int
    num_views: int
    num_texts: int
    num_defects: int
    kinds: Mapping[str, int]
    defects: Sequence[Defect]


def verify(source: str, *, config: VerifyConfig = VerifyConfig()) -> VerifyReport:
    """Looks into every sample of every shard: file against index, keys, pictures, views, embeddings, captions.

    Args:
        source: a packed or reinforced folder; published shards as a folder, a pattern or a file; one of our shards.
        config: what to look into.

    Raises:
        ValueError: there is nothing to look into, or a published set's views or teachers cannot be told.
        FileNotFoundError: there is no such place.
        PublishError: the list of defects cannot be written.
    """
    shards = _shards(source, config=config)
    gathered = _Gathered()
    with ExitStack() as stack:
        file = stack.enter_context(publish_file(config.list_in)) if config.list_in else None
        bar = stack.enter_context(tqdm(total=len(shards.checks), desc="verify", unit="shard", mininterval=1))
        for check in _checked(shards.checks, workers=config.workers):
            gathered.add(check, file=file)
            bar.update()
            bar.set_postfix({"samples": gathered.num_checked, "defects": gathered.num_defects}, refresh=False)
        for defect in [*shards.defects, *gathered.across(shards.paths)]:
            gathered.note(defect, file=file)
    return gathered.report()


@dataclass(frozen=True, kw_only=True)
class _Shards:
    """What there is to look into."""

    checks: Sequence[_Check]
    paths: Mapping[str, Path]  # by the name of the shard
    defects: Sequence[Defect] = ()


def _shards(source: str, *, config: VerifyConfig) -> _Shards:
    path = Path(source)
    if not is_pattern(source) and path.is_dir() and is_packed(path):
        return _packed_shards(path, config=config)
    if config.splits:
        raise ValueError(f"{source} is not a packed folder and has no splits")
    published = open_published(source, augment=config.augment)
    names = {file.relative_to(published.root).as_posix(): file for file in published.paths}
    kinds = {name: is_published(file) for name, file in names.items()}
    settings = None
    if any(kinds.values()):
        teachers = config.teachers
        if not teachers:
            generation = config.generation if config.generation != "auto" else published.generation()
            # Without a word about it the widths of both generations are the same.
            teachers = PUBLISHED_TEACHERS["v2" if generation == "v2" else "v1"]
        settings = PublishedSettings(
            layout=published.layout, teachers=teachers, check_sha256=config.check_sha256
        )
    checks: list[_Check] = []
    for name, file in names.items():
        if kinds[name] and settings is not None:
            checks.append(partial(check_published, file, name=name, settings=settings, sample=config.sample))
        else:
            checks.append(partial(check_packed, file, name=name, entry=None, sample=config.sample))
    return _Shards(checks=checks, paths=names)


def _packed_shards(folder: Path, *, config: VerifyConfig) -> _Shards:
    index = read_index(folder)
    unknown = [split for split in config.splits if split not in index.splits]
    if unknown:
        raise ValueError(f"{folder} has no split {unknown[0]!r}; it has {', '.join(index.splits)}")
    entries = [entry for split in config.splits or tuple(index.splits) for entry in index.splits[split]]
    listed = {entry.file for split in index.splits.values() for entry in split}
    strangers = [
        Defect(shard=name, key="", reason="not listed: it lies in a split and the index does not list it")
        for split in config.splits or tuple(index.splits)
        for found in sorted((folder / split).rglob("*.tar"))
        if (name := found.relative_to(folder).as_posix()) not in listed
    ]
    return _Shards(
        checks=[
            partial(check_packed, folder / entry.file, name=entry.file, entry=entry, sample=config.sample)
            for entry in entries
        ],
        paths={entry.file: folder / entry.file for entry in entries},
        defects=strangers,
    )


def _checked(checks: Sequence[_Check], *, workers: int) -> Iterator[ShardCheck]:
    """Looks into shards in order of their ends; in this process where one worker is enough."""
    if workers == 1 or len(checks) == 1:
        yield from (check() for check in checks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(checks)), mp_context=context) as pool:
        left = iter(checks)
        running: set[Future[ShardCheck]] = {pool.submit(check) for check in islice(left, 2 * workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(check) for check in islice(left, len(done))}
                yield from (future.result() for future in done)
        finally:
            for future in running:
                future.cancel()


@dataclass
class _Gathered:
    """Adds up what was found."""

    num_shards: int = 0
    num_samples: int = 0
    num_checked: int = 0
    num_views: int = 0
    num_texts: int = 0
    num_defects: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    layouts: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # layout -> digest -> the first such shard
    others: list[tuple[str, str, str]] = field(default_factory=list)  # shard, layout, digest
    hashes: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, check: ShardCheck, *, file: IO[bytes] | None) -> None:
        """A shard is through."""
        self.num_shards += 1
        self.num_samples += check.num_samples
        self.num_checked += check.num_checked
        self.num_views += check.num_views
        self.num_texts += check.num_texts
        if check.layout:
            digests = self.layouts.setdefault(check.layout, {})
            if check.digest and check.digest not in digests:
                digests[check.digest] = check.shard
        self.hashes.append(check.key_hashes)
        self.names.append(check.shard)
        for defect in check.defects:
            self.note(defect, file=file)

    def note(self, defect: Defect, *, file: IO[bytes] | None) -> None:
        """Something is wrong."""
        self.num_defects += 1
        self.kinds[defect.kind] = self.kinds.get(defect.kind, 0) + 1
        if len(self.defects) < KEPT:
            self.defects.append(defect)
        if file is not None:
            line = json.dumps(defect.to_json(), ensure_ascii=False)
            file.write(f"{line}\n".encode(errors="backslashreplace"))

    def across(self, paths: Mapping[str, Path]) -> Iterator[Defect]:
        """What only shows when shards are put side by side: mixed ones, and keys that several have."""
        for layout, digests in self.layouts.items():
            first, *rest = sorted(digests.values()) or [""]
            for shard in rest:
                reason = f"mixed: its configuration is another than that of {first}"
                yield Defect(shard=shard, key="", reason=reason)
            if layout != next(iter(self.layouts)):
                reason = f"mixed: it is {layout}, others are {next(iter(self.layouts))}"
                yield Defect(shard=first, key="", reason=reason)
        yield from self._shared_keys(paths)

    def _shared_keys(self, paths: Mapping[str, Path]) -> Iterator[Defect]:
        each = [np.unique(hashes) for hashes in self.hashes]  # within a shard they were told already
        values, counts = np.unique(np.concatenate([*each, np.zeros(0, np.uint64)]), return_counts=True)
        shared = values[counts > 1]
        owners: dict[str, list[str]] = {}
        for name, hashes in zip(self.names, each, strict=True):
            if np.isin(hashes, shared).any():
                for key in sorted(set(_keys(paths[name]))):
                    if hash_keys([key])[0] in shared:
                        owners.setdefault(key, []).append(name)
        for key, names in sorted(owners.items()):
            for name in sorted(names)[1:]:
                reason = f"duplicate key: {sorted(names)[0]} has it, too"
                yield Defect(shard=name, key=key, reason=reason)

    def report(self) -> VerifyReport:
        """The whole."""
        order = sorted(self.defects, key=lambda defect: (defect.shard, defect.key, defect.reason))
        return VerifyReport(
            layout=" and ".join(sorted(self.layouts)) or "nothing readable",
            num_shards=self.num_shards,
            num_samples=self.num_samples,
            num_checked=self.num_checked,
            num_views=self.num_views,
            num_texts=self.num_texts,
            num_defects=self.num_defects,
            kinds=dict(sorted(self.kinds.items(), key=lambda item: (-item[1], item[0]))),
            defects=order,
        )


def _keys(path: Path) -> list[str]:
    """Keys of a shard of ours or of a published one."""
    if not is_published(path):
        with ShardReader(path) as reader:
            return reader.keys
    return [group.key for group in read_groups(path, only=()) if isinstance(group, Group)]
