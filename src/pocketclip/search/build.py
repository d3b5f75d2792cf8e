"""Pictures in, an index out, and only what is new is looked at; decoding runs beside the network.

A file whose size and time have not changed is not read. One that is read and whose content is known, because it was
renamed or copied, is not decoded. What cannot be used is listed, and not tried again until it changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pocketclip.runtime import ExportedModel
from pocketclip.search import firstpass
from pocketclip.search.intake import Intake
from pocketclip.search.media import MediaLimits
from pocketclip.search.schema import OUR_FILES, PICTURES_FILE, printable
from pocketclip.search.source import Entry, distinct, is_packed, walk
from pocketclip.search.store import IndexMeta, IndexReader, Skipped
from pocketclip.search.writer import IndexWriter, Seen, open_writer

MODEL_VARIABLE = "POCKETCLIP_MODEL"
"""Environment variable that names the model of new indexes."""

Within = Mapping[Path, Sequence[Path]]
"""Source folder -> the only subfolders, relative to it, that may have changed."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """How to index.

    Attributes:
        splits: of a packed folder; empty for all.
        batch_size: pictures a run of the network.
        decoders: threads that read, decode and resize pictures; None for one per core.
        threads: of the network; None for one per core.
        limits: of what is decoded.
    """

    splits: tuple[str, ...] = ()
    batch_size: int = 32
    decoders: int | None = None
    threads: int | None = None
    limits: MediaLimits = field(default_factory=MediaLimits)

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

    About once a second what is done is kept: after an interruption or a crash the same call goes on. The index can be
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
        FileNotFoundError: a source, or the model, is not there.
        ValueError: no pictures, none that can be used, a model that cannot be used, or another model than the
            index was made with.
        OSError: a source cannot be read or the index cannot be written.
    """
    return Indexer(out, model=model, config=config).update(sources)


def forget(out: Path, folders: Sequence[Path]) -> int:
    """Take source folders out of an index; their files are left alone.

    Returns:
        How many items went.

    Raises:
        FileNotFoundError: there is no such index.
        ValueError: it does not hold such a folder.
    """
    reader = IndexReader(Path(out))
    meta = reader.meta
    reader.close()
    with open_writer(Path(out), meta) as writer:
        for folder in folders:
            if not writer.forget_folder(folder.absolute()):
                known = ", ".join(printable(path) for path in meta.folders)
                raise ValueError(f"{out} does not hold {printable(folder.absolute())}; it holds {known}")
        return writer.sweep()


class Indexer:
    """Brings one index up to date, as often as it is asked, with one loaded model.

    Attributes:
        path: of the index.
        model: that embeds.
        folders: source folders that the index holds, absolute.
    """

    def __init__(self, out: Path, *, model: Path | None = None, config: IndexConfig | None = None) -> None:
        """Open the model; `index` explains the arguments and what is raised."""
        self.path = Path(out)
        self._config = config or IndexConfig()
        self._is_new = not (self.path / PICTURES_FILE).is_file()
        if self._is_new:
            self.model, self._meta = self._begun(model)
        else:
            self.model, self._meta = self._continued(model)
        self.folders = list(self._meta.folders)

    def update(self, sources: Sequence[Path] = (), *, within: Within | None = None) -> IndexSummary:
        """One pass over source folders.

        Args:
            sources: empty for all that the index holds.
            within: of these folders, only these subfolders.
        """
        started = time.perf_counter()
        folders = distinct(Path(source) for source in sources) if sources else self.folders
        if not folders:
            raise ValueError(f"{self.path} is new and holds no folders: name a folder of pictures")
        listed = {folder: self._listed(folder, (within or {}).get(folder)) for folder in folders}
        if self._is_new:
            for folder in (folder for folder, entries in listed.items() if not entries):
                raise _no_pictures(folder)
        with open_writer(self.path, self._meta) as writer:
            intake = Intake(writer, self.path, model=self.model, config=self._config)
            gone: list[int] = []
            changed: list[tuple[Entry, Seen]] = []
            for folder, entries in listed.items():
                writer.folder(folder)
                new, old = _compared(writer, folder, entries, (within or {}).get(folder))
                changed += new
                gone += old
            intake.take(changed)
            if gone:
                writer.forget(gone)
            num_gone = writer.sweep()
            if within is None or intake.num_new or num_gone:
                self._cover(writer)
        self.folders += [folder for folder in folders if folder not in self.folders]
        return self._summary(intake, num_gone=num_gone, started=started)

    def _begun(self, model: Path | None) -> tuple[ExportedModel, IndexMeta]:
        out, named = self.path, model or os.environ.get(MODEL_VARIABLE)
        if not named:
            raise ValueError(
                f"{out} is new and needs a model: give --model (or {MODEL_VARIABLE}), a folder written by "
                f"`pocketclip export`"
            )
        if out.is_dir() and any(path.name not in OUR_FILES for path in out.iterdir()):
            raise FileExistsError(
                f"{out} is a folder with other files in it: choose another folder for the index"
            )
        exported = ExportedModel(named, threads=self._config.threads)
        return exported, IndexMeta(
            model=exported.folder.absolute(),
            model_nearby=Path(os.path.relpath(exported.folder.absolute(), out.absolute())),
            model_digest=exported.manifest.digest,
            embed_dim=exported.manifest.embed_dim,
            folders=(),
        )

    def _continued(self, model: Path | None) -> tuple[ExportedModel, IndexMeta]:
        reader = IndexReader(self.path)
        known = reader.meta
        reader.close()
        exported = ExportedModel(model or _remembered(self.path, known), threads=self._config.threads)
        if exported.manifest.digest != known.model_digest:
            raise ValueError(
                f"{self.path} was made with another model than the one in {exported.folder}, and their vectors "
                f"cannot be compared: give the model of {known.model}, or index into another folder (--out)"
            )
        return exported, known

    def _listed(self, folder: Path, parts: Sequence[Path] | None) -> list[Entry]:
        """Entries of a source folder, or of some of its subfolders."""
        if parts is None or is_packed(folder):
            return list(walk(folder, splits=self._config.splits))
        return [
            replace(entry, path=part / entry.path)
            for part in parts
            if (folder / part).is_dir()
            for entry in walk(folder / part)
        ]

    def _cover(self, writer: IndexWriter) -> None:
        """Keeps the first pass up with the vectors, where there are many."""
        if not firstpass.is_available():
            return
        reader = IndexReader(self.path)
        try:
            vectors = reader.vectors
            if firstpass.keep_up(self.path, vectors):
                writer.announce()
        finally:
            reader.close()

    def _summary(self, intake: Intake, *, num_gone: int, started: float) -> IndexSummary:
        reader = IndexReader(self.path)
        try:
            num_items, skipped = len(reader), tuple(reader.skipped())
        finally:
            reader.close()
        if self._is_new and not num_items:
            for path in self.path.iterdir():
                path.unlink()
            self.path.rmdir()
            raise ValueError(
                f"none of the {len(skipped)} pictures can be used; the first: {skipped[0].reason}"
            )
        self._is_new = False
        return IndexSummary(
            path=self.path,
            num_items=num_items,
            num_new=intake.num_new,
            num_moved=intake.num_moved,
            num_gone=num_gone,
            skipped=skipped,
            seconds=time.perf_counter() - started,
        )


def _remembered(out: Path, known: IndexMeta) -> Path:
    nearby, named = out.absolute() / known.model_nearby, os.environ.get(MODEL_VARIABLE)
    places = [nearby, known.model, *([Path(named)] if named else [])]
    found = next((folder for folder in places if folder.is_dir()), None)
    if found is None:
        raise FileNotFoundError(
            f"{out} was made with the model in {known.model}, which is not there: name its folder with --model"
        )
    return found


def _compared(
    writer: IndexWriter, folder: Path, entries: Sequence[Entry], parts: Sequence[Path] | None
) -> tuple[list[tuple[Entry, Seen]], list[int]]:
    """What of a folder must be read, and the entries whose files are gone.

    Raises:
        ValueError: there are no pictures in it, though there were: it may not be mounted.
    """
    known = writer.entries(folder)
    if not entries and parts is None:
        if known:
            raise ValueError(
                f"{printable(folder)} holds no pictures now, and {len(known)} of it are indexed: mount it, or take it "
                f"out of the index with --forget {printable(folder)}"
            )
        raise _no_pictures(folder)
    changed = []
    hidden = {entry.path for entry in entries if entry.unlisted}
    for entry in entries:
        before = known.pop((entry.path, entry.key), None)
        seen = Seen(
            folder=folder,
            path=entry.path,
            key=entry.key,
            num_bytes=entry.num_bytes,
            modified_ns=entry.modified_ns,
        )
        if before is None or entry.modified_ns < 0 or before[1:] != (seen.num_bytes, seen.modified_ns):
            changed.append((entry, seen))
    gone = [
        number
        for (path, _), (number, _, _) in known.items()
        if (parts is None or _is_in(path, parts)) and not _is_in(path, hidden)
    ]
    return changed, gone


def _no_pictures(folder: Path) -> ValueError:
    return ValueError(f"{printable(folder)} holds no pictures or videos: choose another folder")


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(folder == path or folder in path.parents for folder in folders)
