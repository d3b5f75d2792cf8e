"""Contact sheets: every row is there, right hits are framed, any title fits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.data.sheet import RIGHT
from pocketclip.search import Hit, Picture, Row, SheetConfig, contact_sheet
from pocketclip.search.sheet import draw_sheet

CONFIG = SheetConfig()


def hit(rank: int, *, key: str, colour: str = "blue", size: tuple[int, int] = (60, 40)) -> Hit:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    picture = Picture(
        id=rank,
        folder=Path("/photos"),
        path=Path(f"{key}.jpg"),
        key=key,
        frame=0,
        at_s=None,
        sha256="0" * 64,
        kind="picture",
        num_bytes=1,
        width=size[0],
        height=size[1],
        taken=None,
        modified="2024-05-01T12:00:00",
        latitude=None,
        longitude=None,
        caption=None,
    )
    return Hit(rank=rank, score=1 / rank, picture=picture, load=lambda number: buffer.getvalue())


def count(sheet: Image.Image, colour: tuple[int, int, int], *, tolerance: int = 3) -> int:
    return int((np.abs(np.asarray(sheet, dtype=int) - colour).max(axis=2) <= tolerance).sum())


def test_only_right_hits_are_framed():
    hits = [hit(1, key="a"), hit(2, key="b"), hit(3, key="c")]
    unknown = draw_sheet([Row(title="query", hits=hits)], config=CONFIG)
    one = draw_sheet([Row(title="query", hits=hits, expected={"b"})], config=CONFIG)
    two = draw_sheet([Row(title="query", hits=hits, expected={"b", "/photos/c.jpg"})], config=CONFIG)
    none = draw_sheet([Row(title="query", hits=hits, expected={"z"})], config=CONFIG)
    assert count(unknown, RIGHT) == count(none, RIGHT) == 0
    assert count(one, RIGHT) > 1000
    assert count(two, RIGHT) > 1.5 * count(one, RIGHT)


def test_every_picture_of_every_row_is_drawn():
    rows = [
        Row(title="one", hits=[hit(1, key="a", colour="#ff0000"), hit(2, key="b", colour="#0000ff")]),
        Row(title="two", hits=[hit(1, key="c", colour="#ff00ff")], image=Image.new("L", (300, 20), 77)),
        Row(title="three", hits=[]),
    ]
    sheet = draw_sheet(rows, config=CONFIG)
    for colour in ((254, 0, 0), (0, 0, 254), (255, 0, 254), (77, 77, 77)):
        assert count(sheet, colour, tolerance=6) > 500, colour


@pytest.mark.parametrize("size", [(1, 1), (1, 192), (192, 1), (500, 500), (12, 12)])
def test_pictures_of_any_shape_stay_in_their_cell(size: tuple[int, int]):
    sheet = draw_sheet([Row(title="q", hits=[hit(1, key="a", colour="#ff0000", size=size)])], config=CONFIG)
    rows, columns = np.nonzero(np.abs(np.asarray(sheet, dtype=int) - (254, 0, 0)).max(axis=2) < 40)
    assert np.ptp(columns) < CONFIG.cell_px
    assert np.ptp(rows) < CONFIG.cell_px


def test_a_long_title_makes_the_row_taller():
    short, long = (
        draw_sheet([Row(title=title, hits=[hit(1, key="a")])], config=CONFIG).height
        for title in ("short", "a very long title " * 20)
    )
    assert long > short + 100


def test_the_file_is_published_whole_and_repeatable(tmp_path: Path):
    rows = [Row(title="blue", hits=[hit(1, key="a")], expected={"a"})]
    contact_sheet(rows, tmp_path / "new" / "sheet.png", config=SheetConfig(heading="Heading"))
    first = (tmp_path / "new" / "sheet.png").read_bytes()
    contact_sheet(rows, tmp_path / "new" / "sheet.png", config=SheetConfig(heading="Heading"))
    assert (tmp_path / "new" / "sheet.png").read_bytes() == first
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_refusals(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one query"):
        contact_sheet([], tmp_path / "sheet.png")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="cannot write"):
        contact_sheet([Row(title="x", hits=[])], tmp_path / "file" / "sheet.png")
