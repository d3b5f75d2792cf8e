"""Dataset doctor: what is wrong with a shard set, on one page, with lists of what to drop."""

# Shape suffixes: N samples, D embedding, S numbers of a signature.

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pocketclip.data.picture import decode
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.publish import publish_file
from pocketclip.runtime import ExportedModel
from pocketclip.search.doctor.findings import (
    CaptionFinding,
    DuplicateGroup,
    Misfit,
    find_captions,
    find_duplicates,
    find_misfits,
    signature,
)
from pocketclip.search.doctor.map import Coverage, cover
from pocketclip.search.doctor.page import draw_page
from pocketclip.search.doctor.samples import Lost, Place, ShardFile, ShardSample, list_shards, read_shard
from pocketclip.search.groups import Rows, outliers

PAGE_FILE, JSON_FILE, DROP_FILE = "doctor.html", "doctor.json", "drop.txt"
_LOG_SECONDS = 10  # between lines of progress where nobody watches a terminal


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """How to examine.

    Attributes:
        near: cosine from which on pictures may be copies, above 0 and at most 1.
        alike: correlation of their pixels, at 16 x 16, from which on they are.
        misfit: standard deviations by which others fit better than the own caption.
        alone: standard deviations by which a picture is farther from its nearest than is usual.
        max_map: samples on the map.
        listed: of each kind on the page; the JSON has all.
        batch_size: pictures a run of the network.
        decoders: threads that decode; None for one per core.
        threads: of the network; None for one per core.
        seed: of everything random.
    """

    near: float = 0.95
    alike: float = 0.95
    misfit: float = 4.0
    alone: float = 3.5
    max_map: int = 5000
    listed: int = 60
    batch_size: int = 32
    decoders: int | None = None
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("near", "alike"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0 and at most 1")
        for name in ("max_map", "listed", "batch_size", "decoders", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A sample of the set.

    Attributes:
        split: where it belongs.
        shard: its file, relative to the set.
        key: its name.
        place: to read it again.
        caption: the main one; empty where there is none.
        width: pixels of the picture, upright.
        height: likewise.
        sha256: of the encoded picture.
    """

    split: str
    shard: str
    key: str
    place: Place
    caption: str
    width: int
    height: int
    sha256: bytes


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A picture that is like no other.

    Attributes:
        sample: its number.
        cosine: mean, with the ten nearest others.
        z: standard deviations by which that is less than is usual.
    """

    sample: int
    cosine: float
    z: float


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found. Samples are named by their number in `samples`.

    Attributes:
        source: what was examined.
        model: name of the model.
        samples: all that could be read, in the set's order.
        lost: what could not be read or decoded.
        duplicates: groups of copies, the largest first.
        misfits: pictures and captions that hardly belong together, the worst first.
        outliers: pictures that are like no other, the most alone first.
        captions: captions that are no good.
        coverage: the map.
        own_N: float32, cosine of every picture with its caption.
        seconds: of wall clock.
    """

    source: str
    model: str
    samples: tuple[Examined, ...]
    lost: tuple[Lost, ...]
    duplicates: tuple[DuplicateGroup, ...]
    misfits: tuple[Misfit, ...]
    outliers: tuple[Outlier, ...]
    captions: tuple[CaptionFinding, ...]
    coverage: Coverage
    own_N: npt.NDArray[np.float32]
    seconds: float

    @property
    def splits(self) -> dict[str, int]:
        """Samples of each split, in the set's order."""
        return dict(Counter(sample.split for sample in self.samples))

    @property
    def leaks(self) -> tuple[DuplicateGroup, ...]:
        """Groups of copies that lie in several splits."""
        return tuple(group for group in self.duplicates if len(group.splits) > 1)

    def _same_bytes(self) -> set[int]:
        """Samples whose picture is, byte for byte, that of one that is kept, or of one before it."""
        seen = {self.samples[group.keep].sha256: group.keep for group in self.duplicates}
        members = (member for group in self.duplicates for member in group.members)
        return {
            member for member in members if seen.setdefault(self.samples[member].sha256, member) != member
        }

    def lists(self) -> dict[str, list[int]]:
        """File name -> numbers of the samples in it, ascending.

        `drop.txt` holds what nobody misses: what leaks, what is there twice byte for byte, what has no caption.
        """
        spare = {member for group in self.duplicates for member in group.members if member != group.keep}
        leaked = {
            member
            for group in self.leaks
            for member in group.members
            if self.samples[member].split != self.samples[group.keep].split
        }
        empty = {found.sample for found in self.captions if found.fault in ("empty", "file name")}
        rows = {
            "leaked.txt": leaked,
            "duplicates.txt": spare,
            "mislabelled.txt": {found.sample for found in self.misfits},
            "outliers.txt": {found.sample for found in self.outliers},
            "captions.txt": {found.sample for found in self.captions},
            DROP_FILE: leaked | empty | self._same_bytes(),
        }
        return {name: sorted(numbers) for name, numbers in rows.items()}


def examine(source: str, out: Path, *, model: Path, config: DoctorConfig | None = None) -> Diagnosis:
    """Examine a shard set: every sample is read, decoded and embedded once.

    Writes `doctor.html` (one file, nothing is loaded from elsewhere), `doctor.json` (all that was found), and lists of
    keys, one a line: `leaked.txt`, `duplicates.txt`, `mislabelled.txt`, `outliers.txt`, `captions.txt` and `drop.txt`.
    Two rows of the model's width are kept in memory for each sample.

    Args:
        source: see `list_shards`.
        out: folder for these; made if it is not there.
        model: folder written by `pocketclip export`, with both towers.
        config: None for the defaults.

    Raises:
        ValueError: there are no shards, no sample can be used, or the model cannot be.
        OSError: something cannot be read or written.
    """
    config = config or DoctorConfig()
    started = time.perf_counter()
    exported = ExportedModel(model, threads=config.threads)
    num_tokens_most = exported.tokenizer.config.context_length
    shards = list_shards(source)
    seen = _gather(shards, exported=exported, config=config)
    if not seen.samples:
        first = f"; the first: {seen.lost[0].reason}" if seen.lost else ""
        raise ValueError(f"none of the samples of {source} can be used{first}")
    samples, captions = seen.samples, [sample.caption for sample in seen.samples]
    splits = [sample.split for sample in samples]
    image_ND = np.concatenate(seen.images)
    text_ND, caption_N = _embed_captions(captions, exported=exported)
    sha256 = [sample.sha256 for sample in samples]
    duplicates = find_duplicates(
        image_ND,
        np.stack(seen.signatures),
        sha256,
        splits=splits,
        num_pixels=[sample.width * sample.height for sample in samples],
        cosine=config.near,
        correlation=config.alike,
    )
    num_tokens = [len(exported.tokenizer.encode(caption)) + 2 for caption in captions]
    diagnosis = Diagnosis(
        source=source,
        model=exported.manifest.model,
        samples=tuple(samples),
        lost=tuple(seen.lost),
        duplicates=tuple(duplicates),
        misfits=tuple(_misfits(image_ND, text_ND, caption_N, captions, duplicates, config=config)),
        outliers=tuple(_outliers(image_ND, duplicates, config=config)),
        captions=tuple(find_captions(captions, num_tokens, most_tokens=num_tokens_most, sha256=sha256)),
        coverage=cover(
            image_ND, text_ND, captions=captions, splits=splits, most=config.max_map, seed=config.seed
        ),
        own_N=np.einsum("nd,nd->n", image_ND, text_ND),
        seconds=time.perf_counter() - started,
    )
    _publish(diagnosis, Path(out), listed=config.listed)
    return diagnosis


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    sample: Examined
    pixels_HWC: npt.NDArray[np.uint8]
    signature_S: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    samples: list[Examined]
    lost: list[Lost]
    images: list[Rows]
    signatures: list[npt.NDArray[np.uint8]]


def _gather(shards: Sequence[ShardFile], *, exported: ExportedModel, config: DoctorConfig) -> _Seen:
    seen = _Seen(samples=[], lost=[], images=[], signatures=[])
    counts = [shard.num_samples for shard in shards]
    total = sum(count for count in counts if count is not None) if None not in counts else None
    interval = 0.1 if sys.stderr.isatty() else _LOG_SECONDS
    with (
        ThreadPoolExecutor(config.decoders or os.cpu_count(), thread_name_prefix="decode") as pool,
        tqdm(total=total, desc="doctor", unit="sample", mininterval=interval) as bar,
    ):
        raw = (sample for shard in shards for sample in read_shard(shard))
        prepared = _prepare_ahead(pool, raw, preprocess=exported.preprocess, ahead=2 * config.batch_size)
        while batch := list(islice(prepared, config.batch_size)):
            good = [item for item in batch if isinstance(item, _Prepared)]
            seen.lost.extend(item for item in batch if isinstance(item, Lost))
            if good:
                seen.images.append(exported.embed_pixels(np.stack([item.pixels_HWC for item in good])))
                seen.samples.extend(item.sample for item in good)
                seen.signatures.extend(item.signature_S for item in good)
            bar.update(len(batch))
    if seen.images and not np.isfinite(np.concatenate(seen.images)).all():
        raise ValueError(
            f"{exported.folder} gives embeddings that are not finite: export the checkpoint again"
        )
    return seen


def _prepare_ahead(
    pool: ThreadPoolExecutor, samples: Iterable[ShardSample | Lost], *, preprocess: Preprocess, ahead: int
) -> Iterator[_Prepared | Lost]:
    waiting: deque[Future[_Prepared | Lost]] = deque()
    for sample in samples:
        waiting.append(pool.submit(_prepare, sample, preprocess=preprocess))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _prepare(sample: ShardSample | Lost, *, preprocess: Preprocess) -> _Prepared | Lost:
    if isinstance(sample, Lost):
        return sample
    try:
        image = decode(sample.image, name=sample.key)
    except ValueError as error:
        reason = str(error).removeprefix(f"{sample.key}: ")
        return Lost(split=sample.split, shard=sample.shard, key=sample.key, reason=reason)
    examined = Examined(
        split=sample.split,
        shard=sample.shard,
        key=sample.key,
        place=sample.place,
        caption=sample.captions[0] if sample.captions else "",
        width=image.width,
        height=image.height,
        sha256=hashlib.sha256(sample.image).digest(),
    )
    return _Prepared(sample=examined, pixels_HWC=preprocess.pixels(image), signature_S=signature(image))


def _embed_captions(
    captions: Sequence[str], *, exported: ExportedModel
) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Rows of the captions, each different one embedded once, and its number."""
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    caption_N = np.array([numbers[caption] for caption in captions], dtype=np.int64)
    return exported.embed_texts(list(numbers))[caption_N], caption_N


def _misfits(
    image_ND: Rows,
    text_ND: Rows,
    caption_N: npt.NDArray[np.int64],
    captions: Sequence[str],
    duplicates: Sequence[DuplicateGroup],
    *,
    config: DoctorConfig,
) -> Iterator[Misfit]:
    """Misfits among the samples that have a caption."""
    group_N = np.arange(len(image_ND))
    for group in duplicates:
        group_N[list(group.members)] = group.members[0]
    rows = np.flatnonzero([bool(caption.strip()) for caption in captions])
    found = find_misfits(
        image_ND[rows],
        text_ND[rows],
        caption_N=caption_N[rows],
        group_N=group_N[rows],
        threshold=config.misfit,
        seed=config.seed,
    )
    for misfit in found:
        numbers = {"sample": int(rows[misfit.sample]), "better": int(rows[misfit.better])}
        yield Misfit(**(asdict(misfit) | numbers))


def _outliers(
    image_ND: Rows, duplicates: Sequence[DuplicateGroup], *, config: DoctorConfig
) -> Iterator[Outlier]:
    """Outliers among different pictures: two copies of one are not alone together."""
    spare = [member for group in duplicates for member in group.members if member != group.keep]
    rows = np.delete(np.arange(len(image_ND)), spare)
    found = outliers(image_ND[rows], seed=config.seed)
    for at in np.argsort(-found.z_N, kind="stable"):
        if found.z_N[at] < config.alone:
            return
        yield Outlier(sample=int(rows[at]), cosine=float(found.cosine_N[at]), z=float(found.z_N[at]))


def _publish(diagnosis: Diagnosis, out: Path, *, listed: int) -> None:
    for name, numbers in diagnosis.lists().items():
        lines = "".join(f"{diagnosis.samples[number].key}\n" for number in numbers)
        with publish_file(out / name) as file:
            file.write(lines.encode(errors="surrogateescape"))
    with publish_file(out / JSON_FILE) as file:
        file.write(
            json.dumps(to_json(diagnosis), indent=1, ensure_ascii=False).encode(errors="backslashreplace")
        )
    with publish_file(out / PAGE_FILE) as file:
        file.write(draw_page(diagnosis, listed=listed).encode(errors="backslashreplace"))


def to_json(diagnosis: Diagnosis) -> dict[str, object]:
    """All that was found, samples named by split, shard and key."""

    def named(number: int) -> dict[str, object]:
        sample = diagnosis.samples[number]
        return {"split": sample.split, "shard": sample.shard, "key": sample.key, "caption": sample.caption}

    def found(record: Misfit | Outlier | CaptionFinding) -> dict[str, object]:
        rest = {name: value for name, value in asdict(record).items() if name not in ("sample", "better")}
        return named(record.sample) | rest

    return {
        "format": "pocketclip-doctor",
        "version": 1,
        "source": diagnosis.source,
        "model": diagnosis.model,
        "splits": diagnosis.splits,
        "seconds": round(diagnosis.seconds, 1),
        "lost": [asdict(lost) for lost in diagnosis.lost],
        "duplicates": [
            {
                "kind": group.kind,
                "splits": group.splits,
                "keep": named(group.keep),
                "samples": [named(member) for member in group.members],
            }
            for group in diagnosis.duplicates
        ],
        "mislabelled": [found(one) | {"better": named(one.better)} for one in diagnosis.misfits],
        "outliers": [found(one) for one in diagnosis.outliers],
        "captions": [found(one) for one in diagnosis.captions],
        "clusters": [
            asdict(cluster) | {"examples": [named(number)["key"] for number in cluster.examples]}
            for cluster in diagnosis.coverage.clusters
        ],
    }
