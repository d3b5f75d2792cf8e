"""What was kept, written down: keys, an index of parts that copies nothing, or shards."""

# Shape suffixes: N rows of a file, K kept ones.

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from pocketclip.data.index import Dropped, ShardIndex, read_index
from pocketclip.data.part import SUFFIX, part_bytes, read_part
from pocketclip.data.publish import publish_file
from pocketclip.data.reinforced import taken_block
from pocketclip.data.reinforcement import BLOCK_NAME
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardEntry, ShardReader, open_shard
from pocketclip.filter.decide import Decision
from pocketclip.filter.scores import Pool, ScoreFile

KEYS_FILE = "kept.txt"


@dataclass(frozen=True, kw_only=True)
class Source:
    """The shard that a score file is of.

    Attributes:
        entry: in the index of its folder.
        path: the file.
    """

    entry: ShardEntry
    path: Path


class Sources:
    """The shards behind a pool.

    Args:
        pool: of score folders of packed folders on this machine.
        split: of the pool.

    Raises:
        ValueError: scores of something else, or of shards that were changed since.
        FileNotFoundError: a folder of shards is gone.
    """

    def __init__(self, pool: Pool, *, split: str) -> None:
        self._pool = pool
        self._entries: list[Mapping[str, ShardEntry]] = []
        self.folders: list[Path] = []
        self.indexes: list[ShardIndex] = []
        for folder, scored in zip(pool.folders, pool.indexes, strict=True):
            place, kind = scored.config.get("data"), scored.config.get("kind")
            if kind != "packed" or not isinstance(place, str) or "://" in place:
                raise ValueError(
                    f"{folder} has scores of {scored.source}, which is no packed folder of this machine: "
                    "`pocketclip pack` it and score that, or ask for keys alone with `--output ids`"
                )
            shards = Path(os.path.normpath(folder / place))
            if not shards.is_dir():
                raise FileNotFoundError(
                    f"{folder} has scores of {shards}, which is not there: put it back where it was"
                )
            index = read_index(shards)
            self.indexes.append(index)
            self.folders.append(shards)
            self._entries.append({_stem(entry.file): entry for entry in index.splits.get(split, ())})

    def of(self, file: ScoreFile) -> Source:
        """The shard of a score file.

        Raises:
            ValueError: it is gone from the index, or its hash is another one.
        """
        entry = self._entries[file.pool].get(file.name)
        folder = self.folders[file.pool]
        if entry is None or self._pool.about(file).get("input_sha256") != entry.sha256:
            raise ValueError(
                f"{file.path} has scores of another {file.name} than {folder} holds now: score it again"
            )
        return Source(entry=entry, path=folder / entry.file)


def write_keys(pool: Pool, decision: Decision, out: Path) -> None:
    """Writes the keys of what is kept, one a line, in the pool's order."""
    with publish_file(out / KEYS_FILE) as lines:
        for file in pool.files:
            lines.write(pool.keys(file, _times(file, decision)))


def write_parts(
    pool: Pool, decision: Decision, out: Path, *, sources: Sources, split: str
) -> tuple[ShardEntry, ...]:
    """Writes a part for every shard of which something is kept; nothing is copied."""
    entries = []
    for file in pool.files:
        rows_K = _rows(file, decision)
        if not len(rows_K):
            continue
        source = sources.of(file)
        path, num_bytes, sha256 = source.path, source.entry.num_bytes, source.entry.sha256
        if path.suffix == SUFFIX:  # a part of a part is a part of the shard
            part = read_part(path)
            path, rows_K = part.shard, part.rows_N[rows_K]
            num_bytes = path.stat().st_size
        target = out / split / f"{_name(file, pool, split)}{SUFFIX}"
        shard = Path(os.path.relpath(path, target.parent)).as_posix()
        data = part_bytes(rows_K, shard=shard, num_bytes=num_bytes, sha256=sha256)
        with publish_file(target) as opened:
            opened.write(data)
        entries.append(
            ShardEntry(
                file=target.relative_to(out).as_posix(),
                num_samples=len(rows_K),
                num_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
    return tuple(entries)


def write_shards(
    pool: Pool,
    decision: Decision,
    out: Path,
    *,
    sources: Sources,
    split: str,
    progress: Callable[[int], object],
) -> tuple[ShardEntry, ...]:
    """Writes shards of what is kept, with their reinforcement; a sample that is kept twice gets another key."""
    entries = []
    for file in pool.files:
        rows_K = _rows(file, decision)
        if not len(rows_K):
            continue
        target = out / split / f"{_name(file, pool, split)}.tar"
        with ShardReader(sources.of(file).path) as reader:
            with open_shard(target) as writer:
                seen: dict[str, int] = {}
                for row in rows_K.tolist():
                    writer.add(_renamed(reader[row], seen))
                block = reader.block(BLOCK_NAME)
                if block is not None:
                    stored_K = rows_K if reader.rows is None else reader.rows[rows_K]
                    writer.add_block(BLOCK_NAME, taken_block(block, stored_K))
                del block
            entries.append(replace(writer.entry(), file=target.relative_to(out).as_posix()))
        progress(len(rows_K))
    return tuple(entries)


def joined_index(
    sources: Sources,
    entries: tuple[ShardEntry, ...],
    *,
    split: str,
    config: dict,
    dropped: tuple[Dropped, ...],
) -> ShardIndex:
    """The index of what was written. Sentences that must travel with the pictures do."""
    attribution = dict.fromkeys(text for index in sources.indexes for text in index.attribution)
    return ShardIndex(
        source="; ".join(dict.fromkeys(index.source for index in sources.indexes)),
        splits={split: entries},
        dropped=dropped,
        config=config,
        attribution=tuple(attribution),
    )


def _renamed(sample: Sample, seen: dict[str, int]) -> Sample:
    times = seen[sample.key] = seen.get(sample.key, 0) + 1
    return sample if times == 1 else replace(sample, key=f"{sample.key}-again{times}")


def _times(file: ScoreFile, decision: Decision) -> np.ndarray:
    return decision.times_N[file.first : file.first + file.num_rows]


def _rows(file: ScoreFile, decision: Decision) -> np.ndarray:
    times_N = _times(file, decision)
    return np.repeat(np.arange(len(times_N)), times_N)


def _stem(file: str) -> str:
    return PurePosixPath(file).with_suffix("").as_posix()


def _name(file: ScoreFile, pool: Pool, split: str) -> str:
    """A file's name below its split; pools that are mixed have folders of their own."""
    own = file.name.removeprefix(f"{split}/")
    return own if len(pool.folders) == 1 else f"{file.pool:02d}/{own}"
