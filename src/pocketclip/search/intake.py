"""New pictures on their way into an index: decoded ahead, embedded in batches, kept about once a second."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pocketclip.search.prepare import Bad, Fresh, Prepared, Preparer, beside
from pocketclip.search.schema import printable
from pocketclip.search.source import Entry
from pocketclip.search.store import IndexReader
from pocketclip.search.writer import Content, IndexWriter, Seen

if TYPE_CHECKING:
    from pocketclip.runtime import ExportedModel
    from pocketclip.search.build import IndexConfig

_LOG_SECONDS = 10  # between lines of progress where nobody watches a terminal
_KEEP_S = 1.0  # between transactions


class Intake:
    """One pass of indexing.

    Attributes:
        num_new: items that were embedded.
        num_moved: files whose content was known.
    """

    def __init__(self, writer: IndexWriter, path: Path, *, model: ExportedModel, config: IndexConfig) -> None:
        self.num_new = 0
        self.num_moved = 0
        self._writer = writer
        self._path = path
        self._model = model
        self._config = config
        self._batch = _Batch(model.manifest.embed_dim)
        self._copies: dict[bytes, list[Seen]] = {}
        self._bad: dict[bytes, Bad] = {}
        self._done = 0
        self._kept_at = time.monotonic()

    def take(self, entries: Sequence[tuple[Entry, Seen]]) -> None:
        """Reads files, embeds what is new among them, and keeps it all.

        Raises:
            ValueError: the model gives embeddings that are not finite.
            OSError: the index cannot be written.
        """
        interval = 0.1 if sys.stderr.isatty() else _LOG_SECONDS
        pool = ThreadPoolExecutor(self._config.decoders or os.cpu_count(), thread_name_prefix="decode")
        reader = IndexReader(self._path)
        preparer = Preparer(
            preprocess=self._model.preprocess, is_known=reader.has, limits=self._config.limits
        )
        try:
            with tqdm(
                total=len(entries), desc="index", unit="file", mininterval=interval, disable=not entries
            ) as bar:
                for group in _grouped(preparer.ahead(pool, entries), num=self._config.batch_size):
                    self._embed(group)
                    self._done += len(group)
                    bar.update(len(group))
                    if time.monotonic() - self._kept_at >= _KEEP_S:
                        self._keep(len(entries))
            self._keep(0)
        finally:
            pool.shutdown(cancel_futures=True)
            reader.close()

    def _embed(self, group: Sequence[Prepared | Bad]) -> None:
        stills: list[tuple[Prepared, Fresh]] = []
        for file in group:
            if isinstance(file, Bad):
                self._skip(file)
            elif file.fresh is None:
                self._copy(file)
            elif isinstance(file.fresh, list):
                stills += [(file, fresh) for fresh in file.fresh]
                self._batch.files.append((file.seen, file.sha256))
            else:
                self._embed_video(file, file.fresh)
        self._embed_batch(stills)

    def _embed_video(self, file: Prepared, fresh: Iterable[Fresh]) -> None:
        """All frames of a video, in runs of their own; they are kept together."""
        num, reason = 0, f"{printable(file.seen.path)}: the video has no frame that can be used"
        with beside(fresh) as frames:
            try:
                while some := list(islice(frames, self._config.batch_size)):
                    self._embed_batch([(file, frame) for frame in some])
                    num += len(some)
            except _NotFiniteError:
                raise
            except ValueError as error:  # what came before the damage stays
                reason = str(error)
        if num:
            self._batch.files.append((file.seen, file.sha256))
        else:
            self._skip(Bad(seen=file.seen, reason=reason, sha256=file.sha256))

    def _embed_batch(self, pairs: Sequence[tuple[Prepared, Fresh]]) -> None:
        if not pairs:
            return
        vectors_ND = self._model.embed_pixels(np.stack([fresh.pixels_HWC for _, fresh in pairs]))
        if not np.isfinite(vectors_ND).all():
            raise _NotFiniteError(
                f"{self._model.folder} gives embeddings that are not finite (near "
                f"{printable(pairs[0][0].seen.path)}): export the checkpoint again"
            )
        self._batch.contents += [(file.sha256, file.seen.modified, fresh.content) for file, fresh in pairs]
        self._batch.vectors.append(vectors_ND)
        self.num_new += len(pairs)

    def _copy(self, file: Prepared) -> None:
        """A file whose content is in the index, or on its way there for another file, which may yet turn out bad."""
        if file.sha256 in self._bad:
            self._skip_copies(self._bad[file.sha256], [file.seen])
        else:
            self._copies.setdefault(file.sha256, []).append(file.seen)

    def _skip(self, bad: Bad) -> None:
        self._batch.skipped.append((bad.seen, bad.reason))
        if bad.sha256 is not None:
            self._bad[bad.sha256] = bad
            self._skip_copies(bad, self._copies.pop(bad.sha256, []))

    def _skip_copies(self, bad: Bad, copies: Iterable[Seen]) -> None:
        for seen in copies:
            self._batch.skipped.append(
                (seen, f"{printable(seen.path)}: the same as {printable(bad.seen.path)}")
            )

    def _keep(self, total: int) -> None:
        batch = self._batch
        ready = {sha256 for _, sha256 in batch.files}
        for sha256 in [one for one in self._copies if one in ready or self._writer.knows(one)]:
            seen = self._copies.pop(sha256)
            batch.files += [(one, sha256) for one in seen]
            self.num_moved += len(seen)
        self._writer.progress(self._done, total)
        self._writer.add(batch.files, batch.contents, batch.all_vectors(), batch.skipped)
        self._batch = _Batch(self._model.manifest.embed_dim)
        self._kept_at = time.monotonic()


class _NotFiniteError(ValueError):
    """The model's fault, and not that of the video it happened in."""


class _Batch:
    """What the next transaction holds."""

    def __init__(self, embed_dim: int) -> None:
        self.files: list[tuple[Seen, bytes]] = []
        self.contents: list[tuple[bytes, str, Content]] = []
        self.vectors = [np.empty((0, embed_dim), dtype=np.float32)]
        self.skipped: list[tuple[Seen, str]] = []

    def all_vectors(self) -> npt.NDArray[np.float32]:
        return np.concatenate(self.vectors)


def _grouped(files: Iterator[Prepared | Bad], *, num: int) -> Iterator[list[Prepared | Bad]]:
    while group := list(islice(files, num)):
        yield group
