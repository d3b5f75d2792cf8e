"""Pictures in, one index file out; decoding runs beside the network, and bad pictures are listed, not fatal."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from pocketclip.data.picture import decode
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.publish import publish_file
from pocketclip.runtime import ExportedModel
from pocketclip.search.source import Entry, list_entries
from pocketclip.search.store import IndexMeta, IndexWriter, Picture, Skipped, create

_LOG_SECONDS = 10  # between lines of progress where nobody watches a terminal


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """How to index.

    Attributes:
        splits: of a packed folder; empty for all.
        batch_size: pictures a run of the network.
        decoders: threads that read, decode and resize pictures.
        threads: of the network; None for one per core.
        thumbnail_px: longest side of a thumbnail; smaller pictures keep their size.
    """

    splits: tuple[str, ...] = ()
    batch_size: int = 32
    decoders: int = 2
    threads: int | None = None
    thumbnail_px: int = 192

    def __post_init__(self) -> None:
        for name in ("batch_size", "decoders", "thumbnail_px"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """What was indexed.

    Attributes:
        path: of the index.
        num_pictures: in it.
        skipped: pictures that could not be used, and why; listed in the index too.
        seconds: of wall clock.
    """

    path: Path
    num_pictures: int
    skipped: tuple[Skipped, ...]
    seconds: float

    @property
    def pictures_per_second(self) -> float:
        """Throughput from files to vectors."""
        return self.num_pictures / max(self.seconds, 1e-9)


def index(source: Path, out: Path, *, model: Path, config: IndexConfig | None = None) -> IndexSummary:
    """Embed every picture of a folder, or of a packed folder, into one SQLite file.

    The file appears under its name when it is whole; an earlier index of that name is replaced then. The same
    source and model give the same bytes.

    Args:
        source: folder of pictures (searched to any depth), or a folder written by `pocketclip pack`.
        out: the index, usually `*.sqlite`.
        model: folder written by `pocketclip export`.
        config: None for the defaults.

    Returns:
        Counts, what was skipped and why, seconds.

    Raises:
        ValueError: no pictures, none that can be used, or a model that cannot be used.
        OSError: the source cannot be read or the index cannot be written.
    """
    config = config or IndexConfig()
    started = time.perf_counter()
    source, out = Path(source), Path(out)
    exported = ExportedModel(model, threads=config.threads)
    entries = list_entries(source, splits=config.splits)
    meta = IndexMeta(
        source=source.absolute(),
        model=exported.folder.absolute(),
        model_nearby=Path(os.path.relpath(exported.folder, out.parent)),
        model_digest=exported.manifest.digest,
        embed_dim=exported.manifest.embed_dim,
    )
    with publish_file(out) as file, create(Path(file.name), meta) as writer:
        skipped = _fill(writer, entries, exported=exported, config=config)
        if len(skipped) == len(entries):
            raise ValueError(
                f"none of the {len(entries)} pictures of {source} can be used; the first: {skipped[0].reason}"
            )
    return IndexSummary(
        path=out,
        num_pictures=len(entries) - len(skipped),
        skipped=tuple(skipped),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    picture: Picture
    pixels_HWC: npt.NDArray[np.uint8]


def _fill(
    writer: IndexWriter, entries: list[Entry], *, exported: ExportedModel, config: IndexConfig
) -> list[Skipped]:
    skipped: list[Skipped] = []
    interval = 0.1 if sys.stderr.isatty() else _LOG_SECONDS
    with (
        ThreadPoolExecutor(config.decoders, thread_name_prefix="decode") as pool,
        tqdm(total=len(entries), desc="index", unit="picture", mininterval=interval) as bar,
    ):
        prepared = _prepare_ahead(pool, entries, preprocess=exported.preprocess, config=config)
        while batch := list(islice(prepared, config.batch_size)):
            good = [item for item in batch if isinstance(item, _Prepared)]
            for item in batch:
                if isinstance(item, Skipped):
                    skipped.append(item)
                    writer.skip(item)
            if good:
                vectors_ND = exported.embed_pixels(np.stack([item.pixels_HWC for item in good]))
                if not np.isfinite(vectors_ND).all():
                    raise ValueError(
                        f"{exported.folder} gives embeddings that are not finite "
                        f"(near {good[0].picture.path}): export the checkpoint again"
                    )
                writer.add([item.picture for item in good], vectors_ND)
            bar.update(len(batch))
            bar.set_postfix(skipped=len(skipped), refresh=False)
    return skipped


def _prepare_ahead(
    pool: ThreadPoolExecutor, entries: Iterable[Entry], *, preprocess: Preprocess, config: IndexConfig
) -> Iterator[_Prepared | Skipped]:
    """Prepares entries in the pool, in order, two batches ahead of the reader."""
    waiting: deque[Future[_Prepared | Skipped]] = deque()
    for entry in entries:
        waiting.append(pool.submit(_prepare, entry, preprocess=preprocess, thumbnail_px=config.thumbnail_px))
        if len(waiting) > 2 * config.batch_size:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _prepare(entry: Entry, *, preprocess: Preprocess, thumbnail_px: int) -> _Prepared | Skipped:
    try:
        data, caption = entry.read()
        image = decode(data, name=entry.name)
    except OSError as error:
        return Skipped(
            name=entry.name, reason=f"{entry.name}: cannot be read ({error.strerror or 'input error'})"
        )
    except ValueError as error:
        return Skipped(name=entry.name, reason=str(error))
    picture = Picture(
        path=entry.path,
        key=entry.key,
        sha256=hashlib.sha256(data).hexdigest(),
        width=image.width,
        height=image.height,
        caption=caption,
        thumbnail=_thumbnail(image, longest_px=thumbnail_px),
    )
    return _Prepared(picture=picture, pixels_HWC=preprocess.pixels(image))


def _thumbnail(image: Image.Image, *, longest_px: int) -> bytes:
    scale = min(1.0, longest_px / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
