"""A packed folder without what the doctor found; nothing is copied, shards are named by their rows."""

# Shape suffixes: K rows that are kept.

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from pocketclip.data.foreign.source import is_packed
from pocketclip.data.index import Dropped, ShardIndex, read_index, write_index
from pocketclip.data.part import SUFFIX, part_bytes, read_part
from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue
from pocketclip.data.shard import ShardEntry

if TYPE_CHECKING:
    from pocketclip.search.doctor.examine import Diagnosis

Finding = Literal["leaked", "duplicates", "mislabelled", "outliers", "captions", "drop"]


def check_cleanable(source: str, out: Path) -> None:
    """Make sure, before all the work, that a set can be written without what will be found.

    Raises:
        ValueError: it is no packed folder, or it is the very folder to write.
    """
    if not is_packed(Path(source)):
        raise ValueError(
            f"{source} is no packed folder, so it cannot be cleaned: `pocketclip pack {source} OUT` first"
        )
    if Path(source).resolve() == out.resolve():
        raise ValueError(f"{out} is the set itself: give the clean one a folder of its own")


def write_clean(
    diagnosis: Diagnosis, out: Path, *, without: Collection[Finding] = ("drop",)
) -> dict[str, int]:
    """Write a packed folder of what is left, which every verb takes; it needs the original to stay where it is.

    What cannot be read is left out as well. Reinforcement goes along.

    Args:
        diagnosis: of a packed folder.
        out: folder to make.
        without: names of the lists whose samples are left out.

    Returns:
        Samples of each split.

    Raises:
        ValueError: see `check_cleanable`; or nothing is left of a split.
        OSError: it cannot be written.
    """
    check_cleanable(diagnosis.source, out)
    source = Path(diagnosis.source)
    index, lists = read_index(source), diagnosis.lists()
    gone = {number: name for name in without for number in lists[f"{name}.txt"]}
    rows: dict[str, list[int]] = {}
    for number, sample in enumerate(diagnosis.samples):
        assert sample.place.row is not None, "a packed folder has rows"
        if number not in gone:
            rows.setdefault(sample.shard, []).append(sample.place.row)
    splits = {
        split: tuple(
            _write_part(source / entry.file, out, entry, np.array(rows[entry.file], dtype=np.int64))
            for entry in entries
            if entry.file in rows
        )
        for split, entries in index.splits.items()
    }
    empty = [split for split, entries in splits.items() if not entries]
    if empty:
        raise ValueError(f"nothing would be left of {', '.join(empty)} of {source}: leave out fewer findings")
    dropped = [
        Dropped(
            source=f"{diagnosis.samples[number].shard}: {diagnosis.samples[number].key}",
            reason=f"doctor: {name}",
        )
        for number, name in sorted(gone.items())
    ]
    dropped += [Dropped(source=f"{lost.shard}: {lost.key}", reason=lost.reason) for lost in diagnosis.lost]
    config: dict[str, JsonValue] = {"verb": "doctor", "model": diagnosis.model, "without": [*sorted(without)]}
    write_index(
        out,
        ShardIndex(
            source=index.source,
            splits=splits,
            dropped=tuple(dropped),
            config=config,
            attribution=index.attribution,
        ),
    )
    return {split: sum(entry.num_samples for entry in entries) for split, entries in splits.items()}


def _write_part(path: Path, out: Path, entry: ShardEntry, rows_K: np.ndarray) -> ShardEntry:
    num_bytes = entry.num_bytes
    if path.suffix == SUFFIX:  # a part of a part is a part of the shard
        part = read_part(path)
        path, rows_K = part.shard, part.rows_N[rows_K]
        num_bytes = path.stat().st_size
    target = out / PurePosixPath(entry.file).with_suffix(SUFFIX)
    shard = Path(os.path.relpath(path, target.parent)).as_posix()
    data = part_bytes(rows_K, shard=shard, num_bytes=num_bytes, sha256=entry.sha256)
    with publish_file(target) as file:
        file.write(data)
    return ShardEntry(
        file=target.relative_to(out).as_posix(),
        num_samples=len(rows_K),
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
