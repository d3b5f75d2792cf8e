"""Filters: each condition lets through what it says, alone and together."""

from __future__ import annotations

import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketclip.search import Filter, index
from pocketclip.search.filters import earliest, is_inside, km_between, latest
from pocketclip.search.schema import PICTURES_FILE
from pocketclip.search.store import IndexReader

ODD = os.fsdecode(b"\xff\xfe")  # a folder whose name is not UTF-8
FILES = {  # path: width, height, and what EXIF would have said
    "a/1.png": (10, 400, "2023-12-31T23:59:59", 52.52, 13.405),
    "a/b/2.png": (20, 30, "2024-05-01T12:00:00", 48.8566, 2.3522),
    "a!/3.png": (40, 30, "2024-05-31T23:59:59", None, None),
    "ab/4.png": (50, 60, "2024-06-01T00:00:00", 52.39, 13.06),
    "5.png": (70, 70, None, -18.0, 179.95),
    f"{ODD}/6.png": (90, 90, "2025-01-01T00:00:00", -18.0, -179.95),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, colour_model: Path) -> Path:
    """An index of six pictures. Do not change it."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (name, (width, height, *_)) in enumerate(FILES.items()):
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (number, 0, 0)).save(path)
    out = folder / "x.index"
    index([folder / "source"], out, model=colour_model)
    with closing(sqlite3.connect(out / PICTURES_FILE)) as database, database:
        for number, (width, _, taken, latitude, longitude) in enumerate(FILES.values(), start=1):
            database.execute(
                "UPDATE items SET taken = ?, latitude = ?, longitude = ?, modified = '2020-02-02T02:02:02', "
                "num_bytes = ? WHERE width = ?",
                [taken, latitude, longitude, 100 * number, width],
            )
        database.execute("UPDATE items SET kind = 'raw' WHERE width = 10")
        database.execute("UPDATE items SET kind = 'video' WHERE width = 20")
        database.execute(
            "INSERT INTO tags SELECT id, 'dog', 0.5 FROM items WHERE width IN (10, 20) "
            "UNION ALL SELECT id, 'beach', 0.5 FROM items WHERE width IN (20, 40)"
        )
    return out


def let_through(photos: Path, where: Filter) -> set[int]:
    reader = IndexReader(photos)
    ids = reader.select(where)
    assert ids.tolist() == sorted(set(ids.tolist()))
    return {int(picture.path.stem) for picture in reader.items(ids.tolist())}


@pytest.mark.parametrize(
    ("conditions", "numbers"),
    [
        ({}, {1, 2, 3, 4, 5, 6}),
        ({"taken_from": "2024"}, {2, 3, 4, 6}),
        ({"taken_to": "2023"}, {1, 5}),
        ({"taken_to": "2020-02-02"}, {5}),
        ({"taken_from": "2024-05", "taken_to": "2024-05"}, {2, 3}),
        ({"taken_from": "2024-05-01T12:00", "taken_to": "2024-05-31T23:59"}, {2, 3}),
        ({"taken_from": "2024-05-01 12:00:01", "taken_to": "2024-06-01T00"}, {3, 4}),
        ({"folder": "a"}, {1, 2}),
        ({"folder": "a/b/"}, {2}),
        ({"folder": "."}, {1, 2, 3, 4, 5, 6}),
        ({"folder": "b"}, set()),
        ({"folder": ODD}, {6}),
        ({"min_px": 30}, {3, 4, 5, 6}),
        ({"max_px": 30}, {1, 2, 3}),
        ({"min_bytes": 200, "max_bytes": 300}, {2, 3}),
        ({"kinds": ("raw", "video")}, {1, 2}),
        ({"tags": ("dog",)}, {1, 2}),
        ({"tags": ("dog", " Beach")}, {2}),
        ({"tags": ("do",)}, set()),
        ({"near": (52.5, 13.4, 10)}, {1}),
        ({"near": (52.5, 13.4, 40)}, {1, 4}),
        ({"near": (-18.0, 180.0, 20)}, {5, 6}),  # the date line runs between them
        ({"near": (-18.0, -180.0, 20)}, {5, 6}),
        ({"near": (90.0, 0.0, 20100)}, {1, 2, 4, 5, 6}),
        ({"taken_from": "2024", "tags": ("dog",), "min_px": 5}, {2}),
    ],
)
def test_what_is_let_through(photos: Path, conditions, numbers: set[int]):
    where = Filter(**conditions)
    assert bool(where) == bool(conditions)
    assert let_through(photos, where) == numbers


def test_a_folder_may_be_absolute(photos: Path):
    source = photos.parent / "source"
    assert let_through(photos, Filter(folder=str(source / "a"))) == {1, 2}
    assert let_through(photos, Filter(folder=f"{source}/")) == {1, 2, 3, 4, 5, 6}
    assert let_through(photos, Filter(folder=str(source.parent))) == {1, 2, 3, 4, 5, 6}
    assert let_through(photos, Filter(folder=str(source.parent / "sour"))) == set()
    assert let_through(photos, Filter(folder=str(source / ODD))) == {6}


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("folder", ["a", "a/b", "ab", ODD, "/s/a", "/s", "/"])
def test_inside_is_what_the_filter_says(name: str, folder: str):
    inside = {"a": "12", "a/b": "2", "ab": "4", ODD: "6", "/s/a": "12", "/s": "123456", "/": "123456"}
    assert is_inside(folder, Path("/s"), Path(name)) == (Path(name).stem in inside[folder])


@pytest.mark.parametrize(
    ("conditions", "named"),
    [
        ({"taken_from": "May"}, "taken_from is 'May'"),
        ({"taken_to": "2024-13"}, "taken_to"),
        ({"taken_to": "2024-1"}, "taken_to"),
        ({"taken_from": "2024-02-00"}, "taken_from"),
        ({"taken_from": "2025", "taken_to": "2024"}, "swap"),
        ({"min_px": 5, "max_px": 4}, "swap"),
        ({"min_bytes": 5, "max_bytes": 4}, "swap"),
        ({"kinds": ("film",)}, "'film' is none of picture, raw, video"),
        ({"tags": (" ",)}, "tag"),
        ({"near": (91.0, 0.0, 1.0)}, "latitude"),
        ({"near": (0.0, 0.0, 0.0)}, "km above 0"),
        ({"near": (0.0, 0.0, math.nan)}, "km above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(conditions, named: str):
    with pytest.raises(ValueError, match=named):
        Filter(**conditions)


@pytest.mark.parametrize(
    ("time", "first", "last"),
    [
        ("2024", "2024-01-01T00:00:00", "2024-12-31T23:59:59"),
        ("2024-02", "2024-02-01T00:00:00", "2024-02-31T23:59:59"),
        ("2024-02-03", "2024-02-03T00:00:00", "2024-02-03T23:59:59"),
        ("2024-02-03T04", "2024-02-03T04:00:00", "2024-02-03T04:59:59"),
        ("2024-02-03T04:05", "2024-02-03T04:05:00", "2024-02-03T04:05:59"),
        ("2024-02-03 04:05:06", "2024-02-03T04:05:06", "2024-02-03T04:05:06"),
    ],
)
def test_a_cut_time_stands_for_all_of_it(time: str, first: str, last: str):
    assert (earliest(time), latest(time)) == (first, last)


DEGREES = st.floats(-90, 90)


@given(DEGREES, st.floats(-180, 180), DEGREES, st.floats(-180, 180))
def test_distances_are_those_of_a_sphere(
    latitude: float, longitude: float, other: float, other_longitude: float
):
    there = km_between(latitude, longitude, other, other_longitude)
    back = km_between(other, other_longitude, latitude, longitude)
    assert there == pytest.approx(back, abs=1e-6)
    assert 0 <= there <= 20016
    cosine = math.sin(math.radians(latitude)) * math.sin(math.radians(other)) + math.cos(
        math.radians(latitude)
    ) * math.cos(math.radians(other)) * math.cos(math.radians(longitude - other_longitude))
    assert math.cos(there / 6371.0088) == pytest.approx(cosine, abs=1e-9)


def test_a_known_distance():
    assert km_between(52.5200, 13.4050, 48.8566, 2.3522) == pytest.approx(878, abs=1)  # Berlin to Paris
