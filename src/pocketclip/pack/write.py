"""Candidates in, checked samples out: the one writer behind every kind of source."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pocketclip.data.foreign.candidate import Candidate, admit
from pocketclip.data.index import INDEX_FILE, Dropped, ShardIndex, read_index, split_shards, write_index
from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue
from pocketclip.data.shard import ShardEntry, ShardWriter, open_shard


@dataclass(frozen=True, kw_only=True)
class PackJob:
    """One packed folder to be.

    Attributes:
        out: the folder.
        source: what is packed, for the index.
        config: everything the bytes depend on; a folder made with the same is not made again.
        shard_samples: split name -> most samples a shard, in the order of the index.
        attribution: sentences that must travel with the pictures.
    """

    out: Path
    source: str
    config: Mapping[str, JsonValue]
    shard_samples: Mapping[str, int]
    attribution: tuple[str, ...] = ()


def finished(job: PackJob) -> ShardIndex | None:
    """The index of the job's folder when it is already whole, or None when there is work to do.

    Raises:
        ValueError: the folder holds something else, or what it holds is damaged.
    """
    if job.out.exists() and not job.out.is_dir():
        raise ValueError(f"{job.out} is a file: choose another output folder")
    if not (job.out / INDEX_FILE).exists():
        if job.out.exists() and _has_other_files(job.out):
            raise ValueError(f"{job.out} already holds other files: choose an empty or new output folder")
        return None
    index = read_index(job.out)
    if index.config != job.config:
        raise ValueError(
            f"{job.out} already holds a pack of {index.source} ({_difference(index, job)}): "
            f"choose another output folder or delete that one"
        )
    for split in index.splits:
        split_shards(job.out, split)  # raises, naming the shard, when one is missing or cut
    (job.out / _UNDER_WAY).unlink(missing_ok=True)
    tqdm.write(f"{job.out} is already packed: {index.num_samples():,} samples", file=sys.stderr)
    return index


def write_folder(
    job: PackJob, candidates: Iterable[Candidate | Dropped], *, total: int | None = None
) -> ShardIndex:
    """Checks candidates, writes the good ones to shards and, last, the index.

    Every picture is decoded once. A bad candidate is dropped, counted and listed. Only the sample at hand
    is in memory. The shards of a killed run are written again, with the same bytes.

    Args:
        job: what to write, and where.
        candidates: pictures and captions, and what the source itself had to leave out.
        total: how many candidates, when known (for the time left).

    Returns:
        The index, as written.

    Raises:
        ValueError: nothing usable.
        PublishError: the folder cannot be written.
    """
    _start_afresh(job.out)
    writer = _FolderWriter(job)
    with ExitStack() as stack, _progress(job, total=total) as bar:
        stack.push(writer.abandon)
        for candidate in candidates:
            writer.take(candidate)
            bar.update()
            if bar.n % 64 == 0:
                bar.set_postfix(dropped=len(writer.dropped), refresh=False)
        bar.set_postfix(dropped=len(writer.dropped))
        writer.close()
    index = writer.index()
    if not index.splits:
        (job.out / _UNDER_WAY).unlink()
        raise ValueError(f"nothing in {job.source} can be packed: {_summary(index.dropped)}")
    write_index(job.out, index)
    (job.out / _UNDER_WAY).unlink()
    return index


def bar_seconds() -> float:
    """Seconds between two drawings of a progress bar: fewer lines where they go to a log."""
    return 0.1 if sys.stderr.isatty() else 10.0


class _FolderWriter:
    """The open shard of each split."""

    def __init__(self, job: PackJob) -> None:
        self._job = job
        self._open: dict[str, tuple[ExitStack, ShardWriter]] = {}
        self._entries: dict[str, list[ShardEntry]] = {split: [] for split in job.shard_samples}
        self._keys: set[str] = set()
        self._licences: Counter[str] = Counter()
        self.dropped: list[Dropped] = []

    def take(self, candidate: Candidate | Dropped) -> None:
        sample = candidate if isinstance(candidate, Dropped) else admit(candidate)
        if isinstance(sample, Dropped):
            self.dropped.append(sample)
            return
        assert isinstance(candidate, Candidate)
        if sample.key in self._keys:
            reason = f"another sample already has the key {sample.key}"
            self.dropped.append(Dropped(source=candidate.source, reason=reason))
            return
        self._keys.add(sample.key)
        licence = sample.meta.get("licence")
        if isinstance(licence, str):
            self._licences[licence] += 1
        shard = self._shard(candidate.split)
        shard.add(sample)
        if len(shard) == self._job.shard_samples[candidate.split]:
            self._publish(candidate.split)

    def close(self) -> None:
        for split in tuple(self._open):
            self._publish(split)

    def abandon(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Removes the half-written shards when an exception passes."""
        for stack, _ in self._open.values():
            stack.__exit__(kind, error, None)

    def index(self) -> ShardIndex:
        return ShardIndex(
            source=self._job.source,
            splits={split: tuple(entries) for split, entries in self._entries.items() if entries},
            dropped=tuple(self.dropped),
            licences=dict(sorted(self._licences.items())),
            config=self._job.config,
            attribution=self._job.attribution,
        )

    def _shard(self, split: str) -> ShardWriter:
        if split not in self._open:
            stack = ExitStack()
            path = self._job.out / split / f"{len(self._entries[split]):06d}.tar"
            self._open[split] = (stack, stack.enter_context(open_shard(path)))
        return self._open[split][1]

    def _publish(self, split: str) -> None:
        stack, shard = self._open.pop(split)
        stack.close()
        self._entries[split].append(shard.entry())


def _progress(job: PackJob, *, total: int | None) -> tqdm:
    return tqdm(total=total, desc=f"pack {Path(job.source).name}", unit="picture", mininterval=bar_seconds())


_SHARD_NAME = re.compile(r"\d{6}\.tar|\.\d{6}\.tar\.partial")
_UNDER_WAY = ".packing"  # tells a folder that we were writing from one with a person's files


def _has_other_files(out: Path) -> bool:
    """Whether a folder holds what no interrupted run of ours left there."""
    names = {path.name for path in out.iterdir()}
    # A run may be killed before the mark has its name.
    return _UNDER_WAY not in names and bool(names - {f".{_UNDER_WAY}.partial"})


def _start_afresh(out: Path) -> None:
    """Marks the folder as being written, and clears what an interrupted run left in it."""
    if (out / _UNDER_WAY).exists():
        _clear_shards(out)
    with publish_file(out / _UNDER_WAY) as file:
        file.write(b"pocketclip pack is writing this folder\n")


def _clear_shards(out: Path) -> None:
    for path in sorted(out.glob("*/*")):
        if _SHARD_NAME.fullmatch(path.name):
            path.unlink()


def _difference(index: ShardIndex, job: PackJob) -> str:
    names = sorted(
        name for name in {*index.config, *job.config} if index.config.get(name) != job.config.get(name)
    )
    return f"made with another {', '.join(names)}"


def _summary(dropped: tuple[Dropped, ...]) -> str:
    if not dropped:
        return "it holds no picture with a caption"
    first = dropped[0]
    return f"all {len(dropped):,} items were dropped, the first, {first.source}, because: {first.reason}"
