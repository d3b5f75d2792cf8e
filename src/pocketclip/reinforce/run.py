"""Reinforces a folder of shards, each shard once, going on where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from pocketclip.data.augment import AugmentSpec
from pocketclip.data.codec import Codec
from pocketclip.data.index import INDEX_FILE, Dropped, ShardIndex, read_index, split_shards, write_index
from pocketclip.data.publish import sha256_file
from pocketclip.data.reinforcement import BLOCK_NAME, VERSION, Reinforcement
from pocketclip.data.shard import ShardEntry, ShardReader
from pocketclip.reinforce.shard import ShardRequest, reinforce_shard
from pocketclip.reinforce.teacher import Teacher, TeacherSpec, build_teacher


@dataclass(frozen=True, kw_only=True)
class ReinforceConfig:
    """A complete reinforcement.

    Attributes:
        teachers: the ensemble.
        num_views: augmentations of each picture.
        augment: what they are drawn from.
        codec: how embeddings are stored.
        seed: of the views.
        splits: of the input folder.
        batch_size: rows a teacher sees at once.
        device: where the teachers run.
    """

    teachers: tuple[TeacherSpec, ...]
    num_views: int = 5
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    codec: Codec = "bf16"
    seed: int = 0
    splits: tuple[str, ...] = ("train",)
    batch_size: int = 256
    device: str = "cpu"

    def __post_init__(self) -> None:
        names = [teacher.name for teacher in self.teachers]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"reinforcement needs one or more teachers of different names, got {names}")
        if self.num_views < 1 or self.batch_size < 1:
            raise ValueError("num_views and batch_size must be at least 1")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError(f"reinforcement needs one or more different splits, got {self.splits}")


def reinforce(data: Path, out: Path, *, config: ReinforceConfig) -> ShardIndex:
    """Writes `out`: for every shard of the splits, one of the same name with its reinforcement, then the index.

    Args:
        data: a packed folder.
        out: the reinforced folder; shards of the same configuration that are there are kept, byte for byte.
        config: the reinforcement.

    Raises:
        ValueError: `out` holds shards of another configuration or input; a teacher or shard is unusable; not one
            sample of a split can be used.
        FileNotFoundError: `data` is no packed folder, or a teacher's checkpoint is missing.
        PublishError: `out` cannot be written.
    """
    source = read_index(data)
    shards = {split: split_shards(data, split) for split in config.splits}
    teachers = [build_teacher(spec, device=config.device) for spec in config.teachers]
    digest, data_digest = _digest(config, teachers), _data_digest(source, splits=config.splits)
    if (out / INDEX_FILE).is_file():
        return _finished(out, digest=digest, data_digest=data_digest)
    request = ShardRequest(
        num_views=config.num_views,
        augment=config.augment,
        codec=config.codec,
        seed=config.seed,
        batch_size=config.batch_size,
        config_digest=digest,
    )
    total = sum(source.num_samples(split) for split in shards)
    splits, dropped = _run(shards, out, teachers=teachers, request=request, total=total)
    index = ShardIndex(
        source=source.source,
        splits=splits,
        dropped=tuple(dropped),
        licences=source.licences,
        attribution=source.attribution,
        config={
            "digest": digest,
            "data_digest": data_digest,
            "num_views": config.num_views,
            "teachers": [asdict(teacher.record) for teacher in teachers],
        },
    )
    write_index(out, index)
    return index


def _finished(out: Path, *, digest: str, data_digest: str) -> ShardIndex:
    """The index of a folder that an earlier run finished."""
    done = read_index(out)
    for name, value, what in (
        ("digest", digest, "with another configuration or other teachers"),
        ("data_digest", data_digest, "from other data"),
    ):
        if done.config.get(name) != value:
            raise ValueError(f"{out} was reinforced {what}: choose another folder, or delete this one")
    return done


def _run(
    shards: dict[str, list[Path]],
    out: Path,
    *,
    teachers: Sequence[Teacher],
    request: ShardRequest,
    total: int,
) -> tuple[dict[str, tuple[ShardEntry, ...]], list[Dropped]]:
    splits: dict[str, tuple[ShardEntry, ...]] = {}
    dropped: list[Dropped] = []
    interval = 0.5 if sys.stderr.isatty() else 10
    with tqdm(total=total, desc="reinforce", unit="sample", mininterval=interval) as bar:
        for split, paths in shards.items():
            entries = []
            for path in paths:
                target = out / split / path.name
                finished = _existing(target, shard=path, digest=request.config_digest)
                if finished:
                    bar.update(finished[0].num_samples + len(finished[1]))
                entry, lost = finished or reinforce_shard(
                    path, target, teachers=teachers, request=request, progress=bar.update
                )
                dropped += [Dropped(source=f"{split}/{path.name}: {key}", reason=lost[key]) for key in lost]
                bar.set_postfix(skipped=len(dropped))
                entries += [entry] if entry else []
            if not entries:
                reason = f"; {dropped[-1].source}: {dropped[-1].reason}" if dropped else ""
                raise ValueError(f"no sample of split {split!r} can be reinforced{reason}")
            splits[split] = tuple(entries)
    return splits, dropped


def _existing(target: Path, *, shard: Path, digest: str) -> tuple[ShardEntry, Mapping[str, str]] | None:
    """The entry and the drops of a shard that an earlier run finished: its name is its done-marker."""
    if not target.is_file():
        return None
    with ShardReader(target) as reader:
        block = reader.block(BLOCK_NAME)
        header = Reinforcement(block, name=str(target)).header if block is not None else None
        num_samples = len(reader)
    if header is None or header.config_digest != digest or header.input_sha256 != sha256_file(shard):
        raise ValueError(
            f"{target} was made with another configuration or input: choose another folder or delete it"
        )
    entry = ShardEntry(
        file=f"{target.parent.name}/{target.name}",
        num_samples=num_samples,
        num_bytes=target.stat().st_size,
        sha256=sha256_file(target),
    )
    return entry, header.dropped


def _digest(config: ReinforceConfig, teachers: Sequence[Teacher]) -> str:
    """Of everything that the output's bytes depend on."""
    described = {
        "version": VERSION,
        "teachers": [asdict(teacher.record) for teacher in teachers],
        "num_views": config.num_views,
        "augment": asdict(config.augment),
        "codec": config.codec,
        "seed": config.seed,
        "splits": config.splits,
        "batch_size": config.batch_size,
        "device": config.device,
    }
    return _hash(described)


def _data_digest(source: ShardIndex, *, splits: Sequence[str]) -> str:
    """Of the shards that are reinforced and of all that the output's index takes over from the input's."""
    return _hash(
        {
            "shards": {split: [entry.sha256 for entry in source.splits[split]] for split in splits},
            "index": [source.source, dict(source.licences), source.attribution],
        }
    )


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
