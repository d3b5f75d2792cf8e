"""Which pictures of an index a query may find: by date, place, size, kind, folder and tags."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketclip.search.store import Kind

KINDS: tuple[Kind, ...] = ("picture", "raw", "video")
"""What an item may come from."""

EARTH_RADIUS_KM = 6371.0088
"""Mean radius (IUGG)."""

_DATE = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)(?:[T ](?P<time>\d\d(?::\d\d(?::\d\d)?)?))?)?)?"
)

Value = str | int | float | bytes


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Conditions that all must hold; None and empty ones are none.

    Attributes:
        taken_from: earliest time, ISO 8601 without a zone, cut anywhere: "2024", "2024-05", "2024-05-01T12:30". A
            picture's time is that of its EXIF, else the file's.
        taken_to: latest time, whole: "2024" holds till the end of that year.
        folder: pictures of this folder and those below: absolute, or relative to a folder that was indexed.
        min_px: least length of the shorter side.
        max_px: greatest length of the shorter side.
        min_bytes: least size of the file.
        max_bytes: greatest size of the file.
        tags: the item has all of them.
        kinds: the item is of one of them.
        near: latitude and longitude in degrees, and how many km around; pictures without a place are not near.

    Raises:
        ValueError: a time that is none, an unknown kind, a place that is none, a range that is empty.
    """

    taken_from: str | None = None
    taken_to: str | None = None
    folder: str | None = None
    min_px: int | None = None
    max_px: int | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    tags: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    near: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("taken_from", "taken_to"):
            _check_time(name, getattr(self, name))
        if self.taken_from and self.taken_to and earliest(self.taken_from) > latest(self.taken_to):
            raise ValueError(f"taken_from {self.taken_from} is after taken_to {self.taken_to}: swap them")
        for unit in ("px", "bytes"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{unit} {least} is above max_{unit} {most}: swap them")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"kind {unknown[0]!r} is none of {', '.join(KINDS)}")
        if any(not tag.strip() for tag in self.tags):
            raise ValueError("a tag to filter by is empty: write its word")
        _check_place(self.near)

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return any(getattr(self, field.name) not in (None, ()) for field in fields(self))


def conditions(where: Filter) -> tuple[str, list[Value]]:
    """A filter as the part of an SQL statement that follows WHERE in `SELECT ... FROM items AS i`.

    An item is in a folder when any of its files is. `km_between` must be a function of the connection.

    Returns:
        The condition ("1" for the empty filter) and the values of its question marks.
    """
    parts: list[str] = []
    values: list[Value] = []

    def hold(condition: str, *given: Value) -> None:
        parts.append(condition)
        values.extend(given)

    moment = "coalesce(i.taken, i.modified)"
    if where.taken_from is not None:
        hold(f"{moment} >= ?", earliest(where.taken_from))
    if where.taken_to is not None:
        hold(f"substr({moment}, 1, 19) <= ?", latest(where.taken_to))
    for column, least, most in (
        ("min(i.width, i.height)", where.min_px, where.max_px),
        ("i.num_bytes", where.min_bytes, where.max_bytes),
    ):
        if least is not None:
            hold(f"{column} >= ?", least)
        if most is not None:
            hold(f"{column} <= ?", most)
    if where.kinds:
        hold(f"i.kind IN ({_marks(where.kinds)})", *where.kinds)
    for tag in where.tags:
        hold("EXISTS (SELECT 1 FROM tags AS t WHERE t.item = i.id AND t.tag = ?)", tag.strip().lower())
    if where.folder is not None:
        _hold_folder(where.folder, hold)
    if where.near is not None:
        _hold_near(where.near, hold)
    return " AND ".join(parts) or "1", values


def _hold_folder(folder: str, hold: Callable[..., None]) -> None:
    """A range of paths: all texts that begin with "a/b/" lie from it to before "a/b0", since "0" follows "/".

    Paths that are not UTF-8 are stored as bytes; cast to text, they compare byte by byte like all others.
    """
    inside = os.fsencode(folder.strip().rstrip("/"))
    if inside in (b"", b"."):
        return
    place = "CAST(h.path AS TEXT)"
    if Path(folder).is_absolute():
        place = f"CAST(h.folder AS TEXT) || '/' || {place}"
    hold(
        f"i.sha256 IN (SELECT h.sha256 FROM files AS h WHERE {place} >= CAST(? AS TEXT) AND {place} < CAST(? AS TEXT))",
        inside + b"/",
        inside + b"0",
    )


def is_inside(where: str, folder: Path, path: Path) -> bool:
    """Whether a file, `path` of a source folder, lies in the folder of a filter or below it."""
    wanted = Path(where.strip())
    return wanted in ((folder / path).parents if wanted.is_absolute() else path.parents)


def _hold_near(near: tuple[float, float, float], hold: Callable[..., None]) -> None:
    """A band of latitudes first, which costs little; then `km_between`, which the store gives to SQLite."""
    latitude, longitude, km = near
    degrees = math.degrees(km / EARTH_RADIUS_KM) * (1 + 1e-9)
    hold("i.latitude BETWEEN ? AND ?", latitude - degrees, latitude + degrees)
    hold("i.longitude IS NOT NULL")
    hold("km_between(?, ?, i.latitude, i.longitude) <= ?", latitude, longitude, km)


def earliest(time: str) -> str:
    """The first second that a cut time stands for: "2024-05" -> "2024-05-01T00:00:00"."""
    return _filled(time, month="01", day="01", rest="00:00:00")


def latest(time: str) -> str:
    """The last second that a cut time stands for; "2024-02" -> "2024-02-31T23:59:59", for comparing as text."""
    return _filled(time, month="12", day="31", rest="23:59:59")


def _filled(time: str, *, month: str, day: str, rest: str) -> str:
    found = _DATE.fullmatch(time.strip())
    assert found is not None
    clock = found["time"] or ""
    return (
        f"{found['year']}-{found['month'] or month}-{found['day'] or day}T"
        f"{clock}{rest[len(clock) :] if clock else rest}"
    )


def _check_time(name: str, time: str | None) -> None:
    if time is None:
        return
    found = _DATE.fullmatch(time.strip())
    month, day = (int(found[part] or 1) for part in ("month", "day")) if found else (0, 0)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise ValueError(f"{name} is {time!r}: write a year, month, day or second, as 2024-05-01T12:00:00")


def _check_place(near: tuple[float, float, float] | None) -> None:
    if near is None:
        return
    latitude, longitude, km = near
    if not (abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < km < math.inf):
        raise ValueError(
            f"near is {near}: it must be a latitude of -90 to 90, a longitude of -180 to 180 and km above 0"
        )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def km_between(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Great-circle distance of two places, degrees in, km out (haversine, on a sphere of the earth's mean radius)."""
    south, north = math.radians(latitude), math.radians(other_latitude)
    east = math.radians(other_longitude - longitude)
    half = math.sin((north - south) / 2) ** 2 + math.cos(south) * math.cos(north) * math.sin(east / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, half)))
