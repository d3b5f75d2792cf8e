"""Writes a reinforced folder in a layout that published tools read, every shard once.

OUT/.publish/done.jsonl      shards that are done, while it goes on
OUT/NAME.tar                 published whole, named after ours
OUT/config.json              the augmentation, on one line
OUT/manifest.jsonl           {"shard": NAME, "num_uids": N} for each
OUT/.published.json          of which configuration and data; written last
"""

# Shape suffixes: A views of a sample, T captions of it, W columns of all teachers.

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from pocketclip.data.augment import unpack
from pocketclip.data.done import DoneList
from pocketclip.data.foreign.published_views import ViewLayout, published_layout, write_view
from pocketclip.data.foreign.published_write import (
    PublishedFiles,
    PublishedFormat,
    published_files,
    write_published_tar,
)
from pocketclip.data.index import read_index, split_shards
from pocketclip.data.publish import publish_file
from pocketclip.data.reinforced import embeddings_of, reinforcement_of
from pocketclip.data.reinforcement import Reinforcement
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader

_TOGETHER = 256  # samples whose rows are decoded at once
_WORK = ".publish"
_MARK = ".published.json"


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """How a folder is published.

    Attributes:
        layout: which of the published layouts.
        with_images: put the pictures in, too; the published sets have none.
        split: of the reinforced folder.
        synthetic: regular expression over captioners' names; theirs are the captions that go in.
        side: of the teachers, pixels, whose translations are written; a block that has its own is left with it.
    """

    layout: PublishedFormat = "v2-npz"
    with_images: bool = False
    split: str = "train"
    synthetic: str = ""
    side: int = 224

    def __post_init__(self) -> None:
        try:
            re.compile(self.synthetic)
        except re.error as error:
            raise ValueError(f"synthetic is no regular expression: {self.synthetic!r} ({error})") from None
        if self.side < 1:
            raise ValueError(f"side must be at least 1, got {self.side}")


@dataclass(frozen=True, kw_only=True)
class PublishReport:
    """What was published.

    Attributes:
        num_shards: tars.
        num_samples: in them.
        num_captions_left: ground-truth captions beyond the first, for which the layout has no room.
        teachers: name and width of each, in the order of their columns.
    """

    num_shards: int
    num_samples: int
    num_captions_left: int
    teachers: Sequence[tuple[str, int]]


def publish(data: Path, out: Path, *, config: PublishConfig = PublishConfig()) -> PublishReport:
    """Writes `out` from a reinforced folder. Killed anywhere and run again it goes on; finished, it is left alone.

    Args:
        data: the reinforced folder.
        out: folder for the published shards.
        config: how.

    Raises:
        ValueError: the layout has no room for what `data` holds; a sample is damaged; `out` holds something else.
        FileNotFoundError: `data` is no packed folder.
        PublishError: `out` cannot be written.
    """
    data, out = Path(data), Path(out)
    shards = split_shards(data, config.split)
    names = [_name(entry.file) for entry in read_index(data).splits[config.split]]
    if not shards:
        raise ValueError(f"{data} has no shard in {config.split}")
    layout, augmentation, block = _layout(shards[0], config=config)
    digest = _digest(data, config=config)
    _claim(out, digest=digest)
    done = DoneList(out / _WORK / "done.jsonl", digest=digest) if not (out / _MARK).exists() else None
    if done is not None:
        bar = tqdm(shards, desc="publish", unit="shard", initial=len(done), total=len(shards), mininterval=1)
        for name, path in zip(names, bar, strict=True):
            if done.get(name) is None or not (out / f"{name}.tar").is_file():
                done.add(name, _publish_shard(path, out / f"{name}.tar", layout=layout, config=config))
        _finish(out, names, done=done, augmentation=augmentation, digest=digest)
    report = json.loads((out / _MARK).read_bytes())
    return PublishReport(
        num_shards=len(names),
        num_samples=report["num_samples"],
        num_captions_left=report["num_captions_left"],
        teachers=[(teacher.name, teacher.embed_dim) for teacher in block.header.teachers],
    )


def _name(file: str) -> str:
    """Our shard's name below its split, without suffix."""
    return PurePosixPath(*PurePosixPath(file).parts[1:]).with_suffix("").as_posix()


def _layout(shard: Path, *, config: PublishConfig) -> tuple[ViewLayout, dict, Reinforcement]:
    with ShardReader(shard) as reader:
        block = reinforcement_of(reader)
        try:
            return *published_layout(block.header.augment, side=config.side), block
        except ValueError as error:
            raise ValueError(f"{shard} cannot be published: {error}") from None


def _digest(data: Path, *, config: PublishConfig) -> str:
    index = read_index(data)
    described = {"config": asdict(config), "shards": [asdict(entry) for entry in index.splits[config.split]]}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _claim(out: Path, *, digest: str) -> None:
    if (out / _MARK).exists():
        if json.loads((out / _MARK).read_bytes()).get("digest") != digest:
            raise ValueError(
                f"{out} was published with another configuration or from other data: choose another folder, or delete "
                f"this one"
            )
        shutil.rmtree(out / _WORK, ignore_errors=True)
    elif out.is_dir() and not (out / _WORK).exists():
        stranger = next(iter(sorted(out.iterdir())), None)
        if stranger is not None:
            raise ValueError(
                f"{out} holds other files ({stranger.name}): choose an empty or new output folder"
            )


def _publish_shard(path: Path, out: Path, *, layout: ViewLayout, config: PublishConfig) -> dict:
    with ShardReader(path) as reader:
        block = reinforcement_of(reader)
        own, _ = published_layout(block.header.augment, side=config.side)
        if own != layout:
            raise ValueError(
                f"{path} was reinforced with another augmentation than the first shard: do not mix"
            )
        left = _Left()
        with publish_file(out) as file:
            num = write_published_tar(file, _files(reader, block, layout=layout, config=config, left=left))
    return {"num_samples": num, "num_captions_left": left.num_captions}


@dataclass
class _Left:
    """What the layout has no room for."""

    num_captions: int = 0


def _files(
    reader: ShardReader, block: Reinforcement, *, layout: ViewLayout, config: PublishConfig, left: _Left
) -> Iterator[PublishedFiles]:
    """The files of all samples of a shard."""
    for start in range(0, len(reader), _TOGETHER):
        some = [reader[row] for row in range(start, min(start + _TOGETHER, len(reader)))]
        left.num_captions += sum(len(sample.captions) - 1 for sample in some)
        embeddings = embeddings_of(block, np.arange(start, start + len(some)))
        text_TW = np.concatenate([one.text_TD for one in embeddings], axis=1)
        ends = np.cumsum([len(sample.texts()) for sample in some])
        for row, (sample, end) in enumerate(zip(some, ends, strict=True)):
            chosen, kept = _chosen(sample, pattern=config.synthetic)
            yield published_files(
                chosen,
                views=[
                    write_view(unpack(params_P), layout=layout, spec=block.header.augment)
                    for params_P in block.params(start + row)
                ],
                image_AW=np.concatenate([one.image_NAD[row] for one in embeddings], axis=1),
                text_TW=text_TW[end - len(sample.texts()) : end][kept],
                layout=config.layout,
                with_image=config.with_images,
            )


def _chosen(sample: Sample, *, pattern: str) -> tuple[Sample, list[int]]:
    """The sample with the captions of the chosen captioners alone, and which of its texts those are."""
    kept = list(range(len(sample.captions)))
    synthetic = {}
    place = len(kept)
    for name in sorted(sample.synthetic):
        texts = sample.synthetic[name]
        if re.search(pattern, name):
            synthetic[name] = texts
            kept += range(place, place + len(texts))
        place += len(texts)
    return replace(sample, synthetic=synthetic), kept


def _finish(out: Path, names: Sequence[str], *, done: DoneList, augmentation: dict, digest: str) -> None:
    counts = {"num_samples": 0, "num_captions_left": 0}
    with publish_file(out / "manifest.jsonl") as manifest:
        for name in names:
            facts = done.get(name)
            assert facts is not None, name
            manifest.write(json.dumps({"shard": name, "num_uids": facts["num_samples"]}).encode() + b"\n")
            for what in counts:
                number = facts[what]
                assert isinstance(number, int)
                counts[what] += number
    for name, content in (("config.json", augmentation), (_MARK, {"digest": digest, **counts})):
        with publish_file(out / name) as file:
            file.write(json.dumps(content).encode() + b"\n")
    shutil.rmtree(out / _WORK, ignore_errors=True)
