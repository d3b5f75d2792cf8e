"""How a join comes by its pictures: our own earlier shard, the images at hand, downloads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pocketclip.data.foreign.fields import make_key
from pocketclip.data.foreign.published import read_details
from pocketclip.data.foreign.tars import Group, picture_of, read_groups
from pocketclip.data.shard import ShardReader
from pocketclip.join.config import PictureSources
from pocketclip.join.fetch import Wanted, fetch
from pocketclip.join.images import Found, ImageIndex, read
from pocketclip.join.ledger import Download, Ledger
from pocketclip.join.plan import Unit

INDEX_FILE = "images.sqlite"
LEDGER_FILE = "downloads.sqlite"
_PICTURES = "pictures"
_DETAILS = ("json", "url.txt")
DOWNLOAD_FAILED = "download failed"


class Pictures:
    """The pictures of a join.

    Args:
        out: the joined folder; the ledger is in it.
        work: for what is only needed while the join goes on.
        sources: where to look.
        check: compare hashes of what is downloaded.
        report: called with the number of pictures that were found in tars and folders since the last call.
        told: called with the outcome of every download.
    """

    def __init__(
        self,
        *,
        out: Path,
        work: Path,
        sources: PictureSources,
        check: bool,
        report: Callable[[int], object] = lambda _: None,
        told: Callable[[Download], object] = lambda _: None,
    ) -> None:
        self._work = work
        self._sources = sources
        self._check = check
        self._told = told
        self._index = ImageIndex(
            work / INDEX_FILE, sources=sources.images, captions=sources.captions, report=report
        )
        needed = sources.download is not None or (out / LEDGER_FILE).exists()
        self._ledger = Ledger(out / LEDGER_FILE) if needed else None
        self._before: ShardReader | None = None
        self._rows: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._folder = work / _PICTURES

    def __enter__(self) -> Pictures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_before()
        self._index.__exit__(kind, error, trace)
        if self._ledger is not None:
            self._ledger.__exit__(kind, error, trace)

    def caption(self, uid: str) -> str | None:
        """The ground-truth caption of a picture in the table of captions."""
        return self._index.caption(uid)

    def prepare(self, unit: Unit, *, before: Path) -> int:
        """Gets ready for a shard, downloads included.

        Args:
            unit: the published shard.
            before: our shard, whose pictures are taken over where an earlier run made it.

        Returns:
            How many pictures are to be had that `before` lacks.
        """
        self._close_before()
        if before.exists():
            with suppress(ValueError):  # somebody cut it
                self._before = ShardReader(before)
                self._rows = {key: row for row, key in enumerate(self._before.keys)}
        self._folder = self._work / _PICTURES / unit.name
        lacking = [one for one in _details(unit) if make_key(one[0]) not in self._rows]
        at_hand = [one for one in lacking if self._index.find(one[0], url=one[1]) is not None]
        return len(at_hand) + self._fetch(lacking, at_hand={one[0] for one in at_hand})

    def done(self) -> None:
        """Forgets what was downloaded for the shard: it has the pictures now."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def find(self, key: str, uid: str, url: str | None) -> Callable[[], Found] | str:
        """How to get a picture, or why there is none."""
        if key in self._rows and self._before is not None:
            reader, row = self._before, self._rows[key]
            return lambda: _taken_over(reader, row)
        place = self._index.find(uid, url=url)
        if place is not None:
            return lambda: read(place)
        file = self._folder / key
        if file.is_file():
            return lambda: Found(image=file.read_bytes())
        if uid in self._failed:
            return f"{DOWNLOAD_FAILED}: {self._failed[uid]}"
        if self._sources.download is not None and url is None:
            return "no picture: it has no address"
        return "no picture: none of the images has its uid or address"

    def _fetch(self, lacking: list[tuple[str, str | None, str | None]], *, at_hand: set[str]) -> int:
        """Downloads what is nowhere; the number of pictures that are there now."""
        self._failed = {}
        if self._ledger is None:
            return 0
        known = self._ledger.get(uid for uid, _, _ in lacking)
        wanted: list[Wanted] = []
        num_there = 0
        for uid, url, sha256 in lacking:
            earlier = known.get(uid)
            if uid in at_hand or url is None:
                continue
            file = self._folder / make_key(uid)
            if file.is_file():
                num_there += 1
                continue
            given_up = earlier is not None and earlier.reason and not self._sources.retry
            if earlier is not None and (given_up or self._sources.download is None):
                self._failed[uid] = earlier.reason or "it was not kept"
            elif self._sources.download is not None:
                wanted.append(
                    Wanted(
                        uid=uid,
                        file=file,
                        url=url,
                        sha256=sha256 if self._check else None,
                        earlier=earlier.attempts if earlier is not None else 0,
                    )
                )
        if self._sources.download is None or not wanted:
            return num_there
        return num_there + fetch(
            wanted, ledger=self._ledger, config=self._sources.download, report=self._note
        )

    def _note(self, download: Download) -> None:
        if download.reason:
            self._failed[download.uid] = download.reason
        self._told(download)

    def _close_before(self) -> None:
        if self._before is not None:
            self._before.close()
        self._before, self._rows = None, {}


def _taken_over(reader: ShardReader, row: int) -> Found:
    sample = reader[row]
    return Found(image=sample.image, captions=sample.captions, is_checked=True)


def _details(unit: Unit) -> Iterator[tuple[str, str | None, str | None]]:
    """Uid, address and hash of every readable sample of a published shard that has no picture with it."""
    for group in read_groups(unit.path, only=_DETAILS):
        if isinstance(group, Group) and picture_of(group.members) is None:
            try:
                yield read_details(group)
            except ValueError:  # the join says so
                continue
