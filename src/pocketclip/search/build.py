"""Pictures in, an index out, and only what is new is looked at; decoding runs beside the network.

A file whose size and time have not changed is not read. One that is read and whose content is known, because it was
renamed or copied, is not decoded. What cannot be used is listed, and not tried again until it changes.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
from pocketclip.runtime import ExportedModel
from pocketclip.search.schema import PICTURES_FILE, printable
from pocketclip.search.source import Entry, list_entries
from pocketclip.search.store import IndexMeta, IndexReader, Skipped
from pocketclip.search.writer import Content, IndexWriter, Seen, open_writer

_LOG_SECONDS = 10  # between lines of progress where nobody watches a terminal
THUMBNAIL_PX = 320
MODEL_VARIABLE = "POCKETCLIP_MODEL"


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """How to index.

    Attributes:
        splits: of a packed folder; empty for all.
        batch_size: pictures a run of the network, and a transaction.
        decoders: threads that read, decode and resize pictures; None for one per core.
        threads: of the network; None for one per core.
    """

    splits: tuple[str, ...] = ()
    batch_size: int = 32
    decoders: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "decoders", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class IndexSummary:
    """What a pass over the source folders changed.

    Attributes:
        path: of the index.
        num_items: in it now, of all its folders.
        num_new: items that were embedded.
        num_moved: files whose content was known: renamed, copied or touched.
        num_gone: items that no file holds any more.
        skipped: files that cannot be used, and why, those of earlier passes too.
        seconds: of wall clock.
    """

    path: Path
    num_items: int
    num_new: int
    num_moved: int
    num_gone: int
    skipped: tuple[Skipped, ...]
    seconds: float

    @property
    def pictures_per_second(self) -> float:
        """New items, from files to vectors."""
        return self.num_new / max(self.seconds, 1e-9)


def index(
    sources: Sequence[Path],
    out: Path,
    *,
    model: Path | None = None,
    config: IndexConfig | None = None,
) -> IndexSummary:
    """Bring an index up to date with source folders.

    Every batch is kept once it is done: after an interruption or a crash the same call goes on. The index can be
    searched meanwhile.

    Args:
        sources: folders of pictures (searched to any depth), or folders written by `pocketclip pack`. What the index
            holds of other folders stays. Empty: all folders that it holds.
        out: folder of the index; made when it is not there.
        model: folder written by `pocketclip export`; None for the one that the index remembers.
        config: None for the defaults.

    Raises:
        BlockingIOError: another process is indexing into it.
        FileExistsError: `out` is a folder with other files in it.
        ValueError: no pictures, none that can be used, a model that cannot be used, or another model than the
            index was made with.
        OSError: a source cannot be read or the index cannot be written.
    """
    config = config or IndexConfig()
    started = time.perf_counter()
    out = Path(out)
    folders, exported, meta = _opened([Path(source) for source in sources], out, model=model, config=config)
    new = not (out / PICTURES_FILE).is_file()
    counts = _Counts()
    listed = [(folder, list_entries(folder, splits=config.splits)) for folder in folders]
    with open_writer(out, meta) as writer:
        for folder, entries in listed:
            _pass(writer, folder, entries, exported=exported, config=config, counts=counts)
    reader = IndexReader(out)
    try:
        num_items, skipped = len(reader), tuple(reader.skipped())
    finally:
        reader.close()
    if new and not num_items:
        raise ValueError(f"none of the {len(skipped)} pictures can be used; the first: {skipped[0].reason}")
    return IndexSummary(
        path=out,
        num_items=num_items,
        num_new=counts.new,
        num_moved=counts.moved,
        num_gone=counts.gone,
        skipped=skipped,
        seconds=time.perf_counter() - started,
    )


def _opened(
    sources: Sequence[Path], out: Path, *, model: Path | None, config: IndexConfig
) -> tuple[list[Path], ExportedModel, IndexMeta]:
    """Source folders, the model, and what the index says of itself, or will say."""
    if (out / PICTURES_FILE).is_file():
        reader = IndexReader(out)
        known = reader.meta
        reader.close()
        exported = ExportedModel(model or _remembered(out, known), threads=config.threads)
        if exported.manifest.digest != known.model_digest:
            raise ValueError(
                f"{out} was made with another model than the one in {exported.folder}, and their vectors cannot be "
                f"compared: give the model of {known.model}, or another --out"
            )
        return [folder.absolute() for folder in sources] or list(known.folders), exported, known
    named = model or os.environ.get(MODEL_VARIABLE)
    if not named:
        raise ValueError(
            f"{out} is new and needs a model: give --model (or {MODEL_VARIABLE}), a folder written by `pocketclip "
            f"export`"
        )
    if not sources:
        raise ValueError(f"{out} is new and holds no folders: name a folder of pictures")
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(
            f"{out} is a folder with other files in it: choose another folder for the index"
        )
    exported = ExportedModel(named, threads=config.threads)
    meta = IndexMeta(
        model=exported.folder.absolute(),
        model_nearby=Path(os.path.relpath(exported.folder.absolute(), out.absolute())),
        model_digest=exported.manifest.digest,
        embed_dim=exported.manifest.embed_dim,
        folders=(),
    )
    return [folder.absolute() for folder in sources], exported, meta


def _remembered(out: Path, known: IndexMeta) -> Path:
    nearby, named = out.absolute() / known.model_nearby, os.environ.get(MODEL_VARIABLE)
    places = [nearby, known.model, *([Path(named)] if named else [])]
    found = next((folder for folder in places if folder.is_dir()), None)
    if found is None:
        raise FileNotFoundError(
            f"{out} was made with the model in {known.model}, which is not there: name its folder with --model"
        )
    return found


@dataclass
class _Counts:
    new: int = 0
    moved: int = 0
    gone: int = 0


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A file that was read: its content is known already, or prepared here."""

    seen: Seen
    sha256: bytes
    frames: tuple[tuple[Content, npt.NDArray[np.uint8]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Bad:
    seen: Seen
    reason: str


class _Claims:
    """Contents that are being prepared, so that copies of one are not decoded twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()

    def claim(self, sha256: bytes) -> bool:
        with self._lock:
            mine = sha256 not in self._claimed
            self._claimed.add(sha256)
            return mine


def _pass(
    writer: IndexWriter,
    folder: Path,
    entries: Sequence[Entry],
    *,
    exported: ExportedModel,
    config: IndexConfig,
    counts: _Counts,
) -> None:
    """Brings one source folder up to date."""
    writer.folder(folder)
    known = writer.entries(folder)
    changed: list[tuple[Entry, Seen]] = []
    for entry in entries:
        before = known.pop((entry.path, entry.key), None)
        seen = _seen(folder, entry)
        if before is None or before[1:] != (seen.num_bytes, seen.modified_ns):
            changed.append((entry, seen))
    interval = 0.1 if sys.stderr.isatty() else _LOG_SECONDS
    with (
        ThreadPoolExecutor(config.decoders or os.cpu_count(), thread_name_prefix="decode") as pool,
        tqdm(total=len(changed), desc="index", unit="picture", mininterval=interval) as bar,
    ):
        prepared = _prepare_ahead(pool, changed, writer=writer, preprocess=exported.preprocess, config=config)
        while batch := list(islice(prepared, config.batch_size)):
            _write(writer, batch, exported=exported, counts=counts)
            bar.update(len(batch))
    counts.gone += writer.forget(number for number, _, _ in known.values())


def _seen(folder: Path, entry: Entry) -> Seen:
    try:
        status = (folder / entry.path).stat()
        num_bytes, modified_ns = status.st_size, status.st_mtime_ns
    except OSError:  # reading it will say why
        num_bytes, modified_ns = 0, -1
    return Seen(folder=folder, path=entry.path, key=entry.key, num_bytes=num_bytes, modified_ns=modified_ns)


def _write(
    writer: IndexWriter, batch: Sequence[_Prepared | _Bad], *, exported: ExportedModel, counts: _Counts
) -> None:
    good = [item for item in batch if isinstance(item, _Prepared)]
    fresh = [(item, content, pixels) for item in good for content, pixels in item.frames]
    vectors_ND = np.empty((0, exported.manifest.embed_dim), dtype=np.float32)
    if fresh:
        vectors_ND = exported.embed_pixels(np.stack([pixels for _, _, pixels in fresh]))
        if not np.isfinite(vectors_ND).all():
            raise ValueError(
                f"{exported.folder} gives embeddings that are not finite (near "
                f"{printable(fresh[0][0].seen.path)}): export the checkpoint again"
            )
    writer.add(
        [(item.seen, item.sha256) for item in good],
        [(item.sha256, item.seen.modified, content) for item, content, _ in fresh],
        vectors_ND,
        [(item.seen, item.reason) for item in batch if isinstance(item, _Bad)],
    )
    counts.new += len(fresh)
    counts.moved += sum(not item.frames for item in good)


def _prepare_ahead(
    pool: ThreadPoolExecutor,
    entries: Iterable[tuple[Entry, Seen]],
    *,
    writer: IndexWriter,
    preprocess: Preprocess,
    config: IndexConfig,
) -> Iterator[_Prepared | _Bad]:
    """Prepares entries in the pool, in order, two batches ahead of the reader."""
    claims = _Claims()
    waiting: deque[Future[_Prepared | _Bad]] = deque()

    def prepared(future: Future[_Prepared | _Bad]) -> _Prepared | _Bad:
        return future.result()

    for entry, seen in entries:
        waiting.append(pool.submit(_prepare, entry, seen, preprocess=preprocess, claims=claims))
        if len(waiting) > 2 * config.batch_size:
            yield prepared(waiting.popleft())
    while waiting:
        yield prepared(waiting.popleft())


def _prepare(entry: Entry, seen: Seen, *, preprocess: Preprocess, claims: _Claims) -> _Prepared | _Bad:
    try:
        data, caption = entry.read()
        sha256 = hashlib.sha256(data).digest()
        image = decode(data, name=entry.name)
    except OSError as error:
        return _Bad(seen=seen, reason=f"{entry.name}: cannot be read ({error.strerror or 'input error'})")
    except ValueError as error:
        return _Bad(seen=seen, reason=str(error))
    if not claims.claim(sha256):
        return _Prepared(seen=seen, sha256=sha256)
    content = Content(
        frame=0,
        at_s=None,
        kind="picture",
        num_bytes=len(data),
        width=image.width,
        height=image.height,
        taken=None,
        latitude=None,
        longitude=None,
        caption=caption,
        thumbnail=thumbnail(image),
    )
    return _Prepared(seen=seen, sha256=sha256, frames=((content, preprocess.pixels(image)),))


def thumbnail(image: Image.Image, *, longest_px: int = THUMBNAIL_PX) -> bytes:
    """A small JPEG of a picture; smaller pictures keep their size."""
    scale = min(1.0, longest_px / max(image.size))
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
