"""Keeping an index up to date while its folders change: the system tells what changed, a pass looks at those parts.

What the system does not tell (network drives, a queue that overflowed, changes while nobody watched) is found by the
whole passes at the start and from time to time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketclip.search.source import SUFFIXES, is_packed

if TYPE_CHECKING:
    from pocketclip.search.build import Indexer, IndexSummary


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """How to watch.

    Attributes:
        quiet_s: a pass begins when nothing has changed for so long,
        longest_s: or when changes have gone on for so long.
        whole_s: between passes over everything.
    """

    quiet_s: float = 1.0
    longest_s: float = 10.0
    whole_s: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("quiet_s", "longest_s", "whole_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be more than 0")


def watch(
    indexer: Indexer,
    sources: Sequence[Path] = (),
    *,
    stop: threading.Event | None = None,
    config: WatchConfig | None = None,
    announce: Callable[[IndexSummary], None] | None = None,
) -> None:
    """Bring an index up to date, and keep it so until it is told to stop.

    Args:
        indexer: of the index.
        sources: as for `Indexer.update`.
        stop: ends it; None for never.
        config: None for the defaults.
        announce: called after the first pass, and after each that changed something.

    Raises:
        ImportError: watchfiles is not installed.
        ValueError, OSError: as `Indexer.update`, of the first pass. Later a folder that cannot be read is told on
            standard error, and tried again with the next pass.
    """
    watchfiles_watch = _watchfiles()
    config, stop = config or WatchConfig(), stop or threading.Event()
    announce = announce or (lambda _: None)
    announce(indexer.update(sources))
    folders = [Path(source).absolute() for source in sources] or indexer.folders
    changes = watchfiles_watch(
        *folders,
        watch_filter=None,
        debounce=round(config.longest_s * 1000),
        step=round(config.quiet_s * 1000),
        stop_event=stop,
        rust_timeout=round(min(config.whole_s, 5.0) * 1000),
        yield_on_timeout=True,
        raise_interrupt=True,
        ignore_permission_denied=True,
    )
    whole_at = time.monotonic() + config.whole_s
    for changed in changes:
        is_due = time.monotonic() >= whole_at
        within = None if is_due else changed_folders(folders, (Path(path) for _, path in changed))
        if within is not None and not within:
            continue
        summary = _pass(indexer, folders if within is None else list(within), within=within)
        if is_due:
            whole_at = time.monotonic() + config.whole_s
        if summary is not None and (summary.num_new or summary.num_moved or summary.num_gone):
            announce(summary)


def changed_folders(sources: Sequence[Path], changed: Iterable[Path]) -> dict[Path, list[Path]]:
    """Where to look after changes.

    Args:
        sources: source folders, absolute.
        changed: files and folders that came, changed or went, absolute.

    Returns:
        Source folder -> its changed subfolders, relative, none inside another. Changes that cannot concern an index
        (hidden names, files that are no pictures) are left out.
    """
    found: dict[Path, set[Path]] = {}
    for path in changed:
        for source in sources:
            if path.is_relative_to(source):
                inside = path.relative_to(source)
                if is_packed(source):
                    found.setdefault(source, set()).add(Path())
                elif _concerns(inside, path):
                    found.setdefault(source, set()).add(inside.parent if inside.parts else inside)
    return {source: list(_outermost(parts)) for source, parts in found.items()}


def _concerns(inside: Path, path: Path) -> bool:
    """Whether it may be a picture, or a folder: one that is gone is known by its name only."""
    if any(part.startswith(".") for part in inside.parts):
        return False
    suffix = inside.suffix.lower()
    return suffix in SUFFIXES or path.is_dir() or not path.exists()


def _outermost(parts: set[Path]) -> Iterator[Path]:
    for part in sorted(parts):
        if not any(other in parts for other in part.parents):
            yield part


def _pass(
    indexer: Indexer, sources: Sequence[Path], *, within: dict[Path, list[Path]] | None
) -> IndexSummary | None:
    try:
        return indexer.update(sources, within=within)
    except (BlockingIOError, ValueError, OSError) as error:  # the whole pass tries it again
        print(f"not indexed now: {error}", file=sys.stderr, flush=True)
        return None


def _watchfiles() -> Callable:
    try:
        from watchfiles import watch as watchfiles_watch
    except ImportError as error:
        raise ImportError("watching needs watchfiles: pip install 'pocketclip[photos]'") from error
    return watchfiles_watch
