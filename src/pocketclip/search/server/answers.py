"""What the index answers, as records of the interface. Everything here may take milliseconds: call it in a thread."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.exceptions import HTTPException

from pocketclip.search.filters import KINDS, Filter
from pocketclip.search.prompts import TEMPLATES
from pocketclip.search.query import Query, SearchIndex
from pocketclip.search.server.problems import Refusal
from pocketclip.search.server.schemas import (
    Filters,
    HitItem,
    Item,
    ItemDetails,
    Items,
    ItemsQuery,
    SearchAnswer,
    SearchQuery,
    SkippedFile,
    SkippedFiles,
    Tag,
    TagCount,
    Where,
)
from pocketclip.search.server.shown import how_shown
from pocketclip.search.store import ItemGoneError, Picture

_MOST_FOLDERS = 2000
_MOST_TAGS = 500
_MOST_SORTED = 20_000  # items that are put into the order of time where conditions are given
_MOST_SKIPPED = 1000
_KEPT_LISTS = 8
_EARLIEST_YEAR = 1826  # of a photograph that still exists


class Answers:
    """Answers questions about one index.

    Args:
        index: the index.
    """

    def __init__(self, index: SearchIndex) -> None:
        self.index = index
        self.reader = index.reader
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[int, Filter], list[int]] = OrderedDict()
        self._filters: tuple[int, Filters] | None = None

    def search(self, asked: SearchQuery, picture: Image.Image | None = None) -> SearchAnswer:
        """What is nearest to words, a picture, an item.

        Raises:
            Refusal: a question that makes no sense, or an item that is not there.
        """
        if asked.like is not None:
            self._items([asked.like])
        try:
            query = Query(
                text=asked.q,
                image=picture,
                like=asked.like,
                crop=numbers(asked.crop),  # ty: ignore[invalid-argument-type]
                text_weight=asked.text_weight,
                where=where(asked),
                k=asked.k,
                offset=asked.offset,
                min_score=asked.min_score,
                unique=asked.unique,
                templates=() if asked.quick else TEMPLATES,
            )
        except ValueError as error:
            raise Refusal(422, str(error)) from error
        generation = self.reader.generation()
        try:
            found = self.index.search(query)
        except ItemGoneError as error:
            raise Refusal(404, str(error)) from error
        return SearchAnswer(
            hits=[
                HitItem(rank=hit.rank, score=round(hit.score, 6), **item_values(hit.picture))
                for hit in found.hits
            ],
            offset=query.offset,
            threshold=found.threshold,
            num_candidates=found.num_candidates,
            nothing=found.nothing,
            seconds=round(found.seconds, 6),
            generation=generation,
        )

    def warm_up(self) -> None:
        """Asks something, so that nobody waits for the model to be loaded and the index to be read."""
        with suppress(ValueError, OSError, HTTPException):  # whoever asks first is told
            for quick in (True, False):
                self.search(SearchQuery(q="a photo", min_score="auto", k=1, quick=quick))

    def items(self, asked: ItemsQuery) -> Items:
        """A page of items.

        Raises:
            Refusal: conditions that make no sense, or the item to go on from is gone.
        """
        conditions = where(asked)
        generation = self.reader.generation()
        after = asked.after or 0
        try:
            if not conditions:
                page, total = (
                    self.reader.page(after=after, limit=asked.limit, order=asked.order),
                    len(self.reader),
                )
            else:
                ids = self._listed(generation, conditions, by_time=asked.order == "newest")
                start = ids.index(after) + 1 if after else 0
                found = self.reader.find(ids[start : start + asked.limit])
                page, total = [found[i] for i in ids[start : start + asked.limit] if i in found], len(ids)
        except (ItemGoneError, ValueError) as error:
            raise Refusal(404, f"there is no item {after} to go on from: begin again") from error
        return Items(items=[item(picture) for picture in page], total=total, generation=generation)

    def details(self, number: int) -> ItemDetails:
        """All about an item.

        Raises:
            Refusal: it is not there.
        """
        (picture,) = self._items([number])
        places = self.reader.places(number)
        tags = self.reader.tags([number])[number]
        shown = how_shown(picture)
        return ItemDetails(
            **item_values(picture),
            num_bytes=picture.num_bytes,
            sha256=picture.sha256,
            modified=picture.modified,
            latitude=picture.latitude,
            longitude=picture.longitude,
            places=[readable(place) for place in places],
            tags=[Tag(tag=tag, score=round(score, 4)) for tag, score in tags],
            file=f"/api/items/{number}/file?v={picture.sha256[:12]}",
            is_converted=shown.is_converted,
            media_type=shown.media_type,
        )

    def picture(self, number: int) -> Picture:
        """What the index knows of an item.

        Raises:
            Refusal: it is not there.
        """
        return self._items([number])[0]

    def thumbnail(self, number: int) -> bytes:
        """JPEG of an item.

        Raises:
            Refusal: it is not there.
        """
        try:
            return self.reader.thumbnail(number)
        except ItemGoneError:
            raise _no_item(number) from None

    def filters(self) -> Filters:
        """What can be filtered by; remembered till the index changes."""
        generation = self.reader.generation()
        known = self._filters
        if known is None or known[0] != generation:
            known = (generation, self._count_filters())
            self._filters = known
        return known[1]

    def skipped(self) -> SkippedFiles:
        """The files that could not be used."""
        skipped = self.reader.skipped()
        return SkippedFiles(
            skipped=[
                SkippedFile(name=printable(s.name), reason=printable(s.reason))
                for s in skipped[:_MOST_SKIPPED]
            ],
            total=len(skipped),
        )

    def _items(self, ids: Sequence[int]) -> list[Picture]:
        try:
            return self.reader.items(ids)
        except ItemGoneError:
            raise _no_item(ids[0]) from None

    def _listed(self, generation: int, conditions: Filter, *, by_time: bool) -> list[int]:
        """Ids that conditions let through, the latest first."""
        with self._lock:
            if (known := self._lists.get((generation, conditions))) is not None:
                self._lists.move_to_end((generation, conditions))
                return known
        ids = [int(number) for number in self.reader.select(conditions)[::-1]]
        if by_time and len(ids) <= _MOST_SORTED:
            found = self.reader.find(ids)
            ids = sorted(found, key=lambda i: (found[i].taken or found[i].modified, i), reverse=True)
        with self._lock:
            self._lists[generation, conditions] = ids
            while len(self._lists) > _KEPT_LISTS:
                self._lists.popitem(last=False)
        return ids

    def _count_filters(self) -> Filters:
        latest = self.reader.page(limit=1)
        last = (latest[0].taken or latest[0].modified) if latest else None
        kinds = [kind for kind in KINDS if len(self.reader.select(Filter(kinds=(kind,))))]
        return Filters(
            folders=[printable(folder) for folder in self.reader.folders()[:_MOST_FOLDERS]],
            kinds=kinds,
            tags=[TagCount(tag=tag, num_items=num) for tag, num in self.reader.tag_counts()[:_MOST_TAGS]],
            taken_from=str(self._first_year(int(last[:4]))) if last else None,
            taken_to=last,
        )

    def _first_year(self, last: int) -> int:
        """Year of the earliest item, by halving."""
        low, high = _EARLIEST_YEAR, max(last, _EARLIEST_YEAR)
        while low < high:
            middle = (low + high) // 2
            if len(self.reader.select(Filter(taken_to=f"{middle:04d}"))):
                high = middle
            else:
                low = middle + 1
        return low


def where(asked: Where) -> Filter:
    """The conditions of a request.

    Raises:
        Refusal: they make no sense.
    """
    near = numbers(asked.near)
    try:
        return Filter(
            taken_from=asked.taken_from,
            taken_to=asked.taken_to,
            folder=asked.folder or None,
            min_px=asked.min_px,
            max_px=asked.max_px,
            min_bytes=asked.min_bytes,
            max_bytes=asked.max_bytes,
            tags=tuple(asked.tag),
            kinds=tuple(asked.kind),
            near=near,  # ty: ignore[invalid-argument-type]
        )
    except ValueError as error:
        raise Refusal(422, str(error)) from error


def numbers(text: str | None) -> tuple[float, ...] | None:
    """Numbers between commas."""
    return None if text is None else tuple(float(part) for part in text.split(","))


def item(picture: Picture) -> Item:
    """An item as the page sees it."""
    return Item(**item_values(picture))


def item_values(picture: Picture) -> dict[str, Any]:
    """Fields of an `Item`."""
    parent = picture.path.parent.as_posix()
    return {
        "id": picture.id,
        "name": printable(picture.name),
        "folder": "" if parent == "." else printable(parent),
        "kind": picture.kind,
        "width": picture.width,
        "height": picture.height,
        "at_s": picture.at_s,
        "taken": picture.taken,
        "thumbnail": f"/api/items/{picture.id}/thumbnail?v={picture.sha256[:12]}",
        "caption": picture.caption,
    }


def readable(path: Path) -> str:
    """A path for people."""
    return printable(str(path))


def printable(text: str) -> str:
    """A name that JSON can carry: bytes that are not UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def _no_item(number: int) -> Refusal:
    return Refusal(404, f"there is no item {number} in this index")


UNREADABLE = (sqlite3.Error, OSError)
"""What an index that is damaged or gone raises."""
