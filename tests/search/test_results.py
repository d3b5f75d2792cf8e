"""Results for other programs: tables that read back, links that lead there, folders that are not eaten."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pocketclip.search import Query, SearchIndex, index
from pocketclip.search.results import COLUMNS, LISTING, clock, values, write_csv, write_json, write_links


@pytest.fixture
def searched(tmp_path: Path, colour_model: Path) -> SearchIndex:
    """Three pictures, two of one name, one of a name that is not UTF-8."""
    for name, colour in (("one/x.png", "red"), ("two/x.png", "#ee1111"), (os.fsdecode(b"\xff.png"), "blue")):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), colour).save(tmp_path / "source" / name)
    index([tmp_path / "source"], tmp_path / "x.index", model=colour_model)
    return SearchIndex(tmp_path / "x.index")


def test_a_table_reads_back(searched: SearchIndex, tmp_path: Path):
    hits = searched.search("red").hits
    write_csv(hits, tmp_path / "new" / "hits.csv")
    with (tmp_path / "new" / "hits.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(hit.path) for hit in hits]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3]
    assert [float(row["score"]) for row in rows] == pytest.approx([hit.score for hit in hits], abs=1e-6)
    assert tuple(rows[0]) == COLUMNS


def test_a_table_runs_no_formula(searched: SearchIndex, tmp_path: Path):
    hit = searched.search("red").hits[0]
    evil = replace(hit, picture=replace(hit.picture, caption="=HYPERLINK(1)"))
    write_csv([evil], tmp_path / "hits.csv")
    assert "'=HYPERLINK(1)" in (tmp_path / "hits.csv").read_text()


def test_json_reads_back(searched: SearchIndex, tmp_path: Path):
    hits = searched.search("red").hits
    write_json(hits, tmp_path / "hits.json", about={"query": "red"})
    assert json.loads((tmp_path / "hits.json").read_text()) == {
        "query": "red",
        "hits": [values(hit) for hit in hits],
    }


class TestLinks:
    def test_each_leads_to_its_picture_by_rank(self, searched: SearchIndex, tmp_path: Path):
        hits = searched.search("red").hits
        assert write_links(hits, tmp_path / "found", reader=searched.reader) == 0
        made = sorted((tmp_path / "found").iterdir(), key=lambda path: os.fsencode(path))
        assert [os.fsencode(path.name) for path in made] == [
            b"1 x.png",
            b"2 x.png",
            b"3 \xff.png",
            LISTING.encode(),
        ]
        for hit, link in zip(hits, made, strict=False):
            assert link.is_symlink()
            assert not link.readlink().is_absolute()
            assert link.resolve() == hit.path.resolve()

    def test_they_move_with_the_pictures(self, searched: SearchIndex, tmp_path: Path):
        hits = searched.search("red").hits
        write_links(hits, tmp_path / "source" / "found", reader=searched.reader)
        (tmp_path / "source").rename(tmp_path / "moved")
        assert (tmp_path / "moved" / "found" / "1 x.png").read_bytes()

    def test_behind_a_linked_folder_they_still_lead_there(self, searched: SearchIndex, tmp_path: Path):
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "short").symlink_to(tmp_path / "deep" / "er")
        write_links(searched.search("red").hits, tmp_path / "short" / "found", reader=searched.reader)
        assert (tmp_path / "short" / "found" / "1 x.png").is_file()

    def test_where_links_are_impossible_files_are_copied(
        self, searched: SearchIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def refuse(self: Path, target: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "symlink_to", refuse)
        hits = searched.search("red").hits
        assert write_links(hits, tmp_path / "found", reader=searched.reader) == 3
        assert (tmp_path / "found" / "1 x.png").read_bytes() == hits[0].path.read_bytes()

    def test_samples_of_shards_are_copied_with_their_extension(
        self, shapes: Path, colour_model: Path, tmp_path: Path
    ):
        index([shapes], tmp_path / "x.index", model=colour_model)
        searched = SearchIndex(tmp_path / "x.index")
        hits = searched.search(Query(text="red", k=12)).hits
        odd = replace(hits[0], picture=replace(hits[0].picture, at_s=None))
        assert write_links([odd, *hits[1:]], tmp_path / "found", reader=searched.reader) == 12
        assert (tmp_path / "found" / f"01 {hits[0].key}.png").read_bytes() == searched.reader.data(hits[0].id)

    def test_moments_of_a_video_have_their_time(self, searched: SearchIndex, tmp_path: Path):
        hit = searched.search("blue").hits[0]
        moments = [
            replace(hit, rank=rank, picture=replace(hit.picture, path=Path("one/x.png"), at_s=at_s))
            for rank, at_s in ((1, 65.2), (2, 3723.0))
        ]
        write_links(moments, tmp_path / "found", reader=searched.reader)
        assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
            "1 1-05 x.png",
            "2 1-02-03 x.png",
            LISTING,
        ]

    def test_an_earlier_search_is_replaced_and_nothing_else(self, searched: SearchIndex, tmp_path: Path):
        hits = searched.search("red").hits
        write_links(hits, tmp_path / "found", reader=searched.reader)
        write_links(hits[:1], tmp_path / "found", reader=searched.reader)
        assert len(list((tmp_path / "found").iterdir())) == 2
        assert hits[1].path.is_file()
        with pytest.raises(FileExistsError, match="other files"):
            write_links(hits, tmp_path / "source", reader=searched.reader)
        assert hits[0].path.is_file()

    def test_a_picture_that_is_gone_leaves_no_folder(self, shapes: Path, colour_model: Path, tmp_path: Path):
        packed = Path(shutil.copytree(shapes, tmp_path / "packed"))
        index([packed], tmp_path / "x.index", model=colour_model)
        searched = SearchIndex(tmp_path / "x.index")
        hits = searched.search("red").hits
        shutil.rmtree(packed)
        with pytest.raises(OSError, match="No such file"):
            write_links(hits, tmp_path / "found", reader=searched.reader)
        assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (5.9, "0:05"), (65, "1:05"), (3600, "1:00:00")])
def test_moments_read_as_a_clock(seconds: float, text: str):
    assert clock(seconds) == text
