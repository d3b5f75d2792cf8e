"""The map of accuracy against latency: every name readable, every point where it belongs."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("adjustText")

from PIL import Image

from pocketclip.evaluate.figure import OWN, Point, draw_map, label_boxes, make_map
from pocketclip.evaluate.figure_labels import overlaps
from pocketclip.evaluate.figure_points import (
    Benched,
    Latency,
    accuracy_of,
    own_point,
    place,
    published_latency,
    published_points,
)
from pocketclip.evaluate.published import published_results, table8

MINE = {"imagenet": 73.9, "mean38": 62.9}


@pytest.mark.parametrize("accuracy", ["imagenet", "mean38"])
def test_no_name_lies_on_another_or_on_a_point(accuracy: str, tmp_path: Path) -> None:
    points = published_points(accuracy)
    points.append(Point(name="mine", family=OWN, latency_ms=5.1, accuracy=MINE[accuracy]))
    outs = [tmp_path / "map.png", tmp_path / "map.svg"]
    figure = draw_map(points, outs, accuracy="accuracy", latency="latency")
    boxes = label_boxes(figure)
    assert set(boxes) == {point.name for point in points}
    assert len(points) > 30
    names = list(boxes)
    assert [(names[i], names[j]) for i, j in overlaps(list(boxes.values()))] == []
    axes = figure.axes[0]
    dots = {point.name: axes.transData.transform((point.latency_ms, point.accuracy)) for point in points}
    covered = [
        (name, other)
        for name, (left, bottom, right, top) in boxes.items()
        for other, (x, y) in dots.items()
        if left < x < right and bottom < y < top
    ]
    assert covered == []
    frame = axes.get_window_extent().extents
    legend = axes.get_legend()
    assert legend is not None
    corner = legend.get_window_extent().extents
    for name, box in boxes.items():
        assert frame[0] <= box[0], name
        assert box[2] <= frame[2], name
        assert not overlaps([box, tuple(corner)]), name
    with Image.open(outs[0]) as image:
        assert min(image.size) > 1000
    texts = {node.text for node in ET.parse(outs[1]).iter("{http://www.w3.org/2000/svg}text")}
    assert {"MobileCLIP2-S0", "SigLIP2-L/16", "mine"} <= texts


def test_overlaps_are_found() -> None:
    assert overlaps([(0, 0, 2, 2), (1, 1, 3, 3), (2, 0, 4, 1)]) == [(0, 1)]


def test_points_are_where_they_were_put_and_equal_maps_equal_bytes(tmp_path: Path) -> None:
    points = [
        Point(name="a", family="MobileCLIP2", latency_ms=3.0, accuracy=60.0),
        Point(name="b", family=OWN, latency_ms=9.0, accuracy=70.0, spread_ms=(8, 11), estimated=True),
    ]
    for name in ("one.svg", "two.svg"):
        figure = draw_map(points, [tmp_path / name], accuracy="accuracy", latency="latency", note="a note")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    offsets = [tuple(xy) for dots in figure.axes[0].collections for xy in dots.get_offsets().tolist()]
    assert offsets == [(3.0, 60.0), (9.0, 70.0)]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["MobileCLIP2", f"{OWN} (estimated latency)"]
    assert "a note" in (tmp_path / "one.svg").read_text()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg"):
        draw_map(published_points("imagenet"), [tmp_path / "map.bmp"], accuracy="a", latency="l")
    with pytest.raises(ValueError, match="no model"):
        make_or_draw([], tmp_path)
    with pytest.raises(ValueError, match="no place"):
        Point(name="a", family="DFN", latency_ms=0.0, accuracy=1.0)
    assert list(tmp_path.iterdir()) == []


def make_or_draw(points: list[Point], folder: Path) -> None:
    draw_map(points, [folder / "map.png"], accuracy="a", latency="l")


def test_one_point_alone() -> None:
    figure = make_map(
        [Point(name="a", family="DFN", latency_ms=3.0, accuracy=50.0)], accuracy="a", latency="l"
    )
    assert set(label_boxes(figure)) == {"a"}


class TestPlaces:
    """Where one's own model stands on the phone's axis."""

    def test_published_towers_take_their_latency(self) -> None:
        bench = {"mine": Benched(variant="mobileclip2_s0", latency_ms=400.0)}
        assert place("mine", bench) == Latency(latency_ms=1.5 + 3.3)
        assert published_latency("MobileCLIP2-S4") == Latency(latency_ms=19.6 + 6.6)
        assert published_latency("SigLIP-SO400M/14") is None

    def test_others_are_estimated_from_published_ones_beside_them(self) -> None:
        bench = {
            "mine": Benched(variant=None, latency_ms=100.0),
            "small": Benched(variant="mobileclip2_s0", latency_ms=48.0),  # a tenth of it on the phone
            "large": Benched(variant="mobileclip2_s4", latency_ms=655.0),  # a twenty-fifth
        }
        found = place("mine", bench)
        assert found.estimated
        assert found.latency_ms == pytest.approx(100 * math.sqrt(0.1 * 0.04))
        assert found.spread_ms == pytest.approx((4.0, 10.0))

    def test_what_is_lacking_is_said(self) -> None:
        with pytest.raises(ValueError, match="beside it|beside mine"):
            place("mine", {"mine": Benched(variant="pocketclip_tiny", latency_ms=1.0)})
        with pytest.raises(ValueError, match="NAME=MODEL"):
            place("mine", {"yours": Benched(variant=None, latency_ms=1.0)})


class TestHeights:
    def test_of_published_results(self) -> None:
        rows = published_results()["MobileCLIP2-S0"]
        assert accuracy_of(rows, "imagenet") == pytest.approx(71.5, abs=0.06)
        assert accuracy_of(rows, "mean38") == pytest.approx(59.7, abs=0.06)
        assert accuracy_of(rows, "vtab/pets") == pytest.approx(91.4, abs=0.06)
        assert accuracy_of(rows[:20], "mean38") is None
        assert accuracy_of(rows, "emoji") is None

    def test_of_any_set(self) -> None:
        points = published_points("vtab/pets")
        assert len(points) == 14
        assert all(table8()[point.name].latency_ms == point.latency_ms for point in points)

    def test_a_model_without_it_is_refused(self) -> None:
        rows = published_results()["MobileCLIP2-S0"][:5]
        with pytest.raises(ValueError, match="mine has no result for mean over the 38"):
            own_point("mine", rows, Latency(latency_ms=3.0), accuracy="mean38")
