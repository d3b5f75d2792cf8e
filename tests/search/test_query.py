"""Queries: the nearest first, exactly; words, pictures and both; refusals that name the remedy."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.search import Filter, IndexConfig, Query, SearchIndex, index
from pocketclip.search.store import PICTURES_FILE


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, shapes: Path, colour_model: Path) -> Path:
    """An index of 48 coloured shapes, 6 of each colour. Do not change it."""
    out = tmp_path_factory.mktemp("built") / "shapes.index"
    index([shapes], out, model=colour_model, config=IndexConfig(splits=("train",)))
    return out


@pytest.fixture(scope="module")
def searched(built: Path) -> SearchIndex:
    return SearchIndex(built)


def all_scores(searched: SearchIndex, query_D: np.ndarray) -> np.ndarray:
    return np.concatenate([rows @ query_D for _, rows in searched.reader.vectors.blocks()])


def captions(found) -> list[str]:
    return [hit.caption for hit in found.hits]


@pytest.mark.parametrize("colour", ["red", "blue"])
def test_words_find_what_they_mean(searched: SearchIndex, colour: str):
    found = searched.search(Query(text=f"a {colour} thing", k=3))
    assert [hit.rank for hit in found.hits] == [1, 2, 3]
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    assert all(colour in caption for caption in captions(found))
    assert (found.nothing, found.num_candidates) == (False, 48)


def test_a_text_is_a_query(searched: SearchIndex):
    assert captions(searched.search("red")) == captions(searched.search(Query(text="red")))


def test_scores_are_cosines_with_every_picture(searched: SearchIndex):
    query = Query(text="green", k=1000)
    found = searched.search(query)
    assert len(found.hits) == len(searched) == 48
    cosines = all_scores(searched, searched.embed(query))
    np.testing.assert_allclose([hit.score for hit in found.hits], np.sort(cosines)[::-1], atol=1e-3)


def test_pages_are_parts_of_one_answer(searched: SearchIndex):
    whole = searched.search(Query(text="blue", k=20)).hits
    pages = [
        hit for offset in (0, 7, 14) for hit in searched.search(Query(text="blue", k=7, offset=offset)).hits
    ]
    assert [(hit.rank, hit.id) for hit in pages[:20]] == [(hit.rank, hit.id) for hit in whole]
    assert searched.search(Query(text="blue", offset=500)).hits == ()


def test_a_picture_finds_its_like(searched: SearchIndex):
    found = searched.search(Query(image=Image.new("RGB", (50, 50), "blue"), k=3))
    assert all("blue" in caption for caption in captions(found))


def test_more_like_an_item_leaves_the_item_out(searched: SearchIndex):
    first = searched.search("red").hits[0]
    found = searched.search(Query(like=first.id, k=8))
    assert first.id not in [hit.id for hit in found.hits]
    assert len(found.hits) == 8
    assert all("red" in caption for caption in captions(found)[:2])


@pytest.mark.parametrize(("weight", "first"), [(0.0, "blue"), (1.0, "red")])
def test_a_weight_of_nothing_leaves_the_other_alone(searched: SearchIndex, weight: float, first: str):
    picture = Image.new("RGB", (9, 9), "blue")
    both = searched.search(Query(text="red", image=picture, text_weight=weight, k=9))
    assert all(first in caption for caption in captions(both)[:3])
    alone = Query(text="red", k=9) if weight else Query(image=picture, k=9)
    assert [hit.id for hit in both.hits] == [hit.id for hit in searched.search(alone).hits]


def test_text_and_picture_together_want_both(searched: SearchIndex):
    found = searched.search(Query(text="red", image=Image.new("RGB", (9, 9), "blue"), k=9))
    assert all("purple" in caption for caption in captions(found)[:4])


class TestCrop:
    @pytest.fixture
    def halves(self) -> Image.Image:
        image = Image.new("RGB", (80, 40), "red")
        image.paste("blue", (40, 0, 80, 40))
        return image

    @pytest.mark.parametrize(
        ("crop", "colour"),
        [((0, 0, 0.5, 1), "red"), ((0.5, 0, 1, 1), "blue"), ((0.9, 0.5, 0.901, 0.501), "blue")],
    )
    def test_the_part_counts(self, searched: SearchIndex, halves: Image.Image, crop, colour: str):
        found = searched.search(Query(image=halves, crop=crop, k=3))
        assert all(colour in caption for caption in captions(found))

    def test_of_an_item_it_is_cut_from_the_original(
        self, tmp_path: Path, halves: Image.Image, colour_model: Path
    ):
        for name, image in {"halves": halves.resize((2000, 1000)), "red": None, "blue": None}.items():
            (image or Image.new("RGB", (30, 30), name)).save(tmp_path / f"{name}.png")
        index([tmp_path], tmp_path / "x.index", model=colour_model)
        searched = SearchIndex(tmp_path / "x.index")
        (item,) = [hit for hit in searched.search("white").hits if hit.name == "halves.png"]
        found = searched.search(Query(like=item.id, crop=(0.6, 0.1, 0.9, 0.9)))
        assert [hit.name for hit in found.hits] == ["blue.png", "red.png"]
        (tmp_path / "halves.png").unlink()  # the thumbnail will do
        assert searched.search(Query(like=item.id, crop=(0.6, 0.1, 0.9, 0.9))).hits[0].name == "blue.png"


def test_a_filter_lets_some_through(tmp_path: Path, colour_model: Path):
    for folder, colour in (("a", "red"), ("a/b", "blue"), ("ab", "green"), ("c", "red")):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        Image.new("RGB", (9, 9), colour).save(tmp_path / "photos" / folder / "x.png")
    index([tmp_path / "photos"], tmp_path / "x.index", model=colour_model)
    searched = SearchIndex(tmp_path / "x.index")
    found = searched.search(Query(text="red", where=Filter(folder="a")))
    assert found.num_candidates == 2
    assert [str(hit.picture.path) for hit in found.hits] == ["a/x.png", "a/b/x.png"]
    copies = searched.search(Query(text="red", where=Filter(folder="c"))).hits
    assert [str(hit.picture.path) for hit in copies] == ["c/x.png"]  # the copy that lies there
    nobody = searched.search(Query(text="red", where=Filter(min_px=5000)))
    assert (nobody.hits, nobody.num_candidates, nobody.nothing) == ((), 0, True)


def test_a_least_score_cuts_the_end_off(searched: SearchIndex):
    every = searched.search(Query(text="red", k=48)).hits
    cut = searched.search(Query(text="red", k=48, min_score=every[9].score))
    assert [hit.id for hit in cut.hits] == [hit.id for hit in every[:10]]
    assert cut.threshold == every[9].score
    assert searched.search(Query(text="red", min_score=1.01)).nothing


def test_near_duplicates_count_once(tmp_path: Path, colour_model: Path):
    draw = np.random.default_rng(0)
    noise = Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((200, 200))
    noise.save(tmp_path / "a.png")
    noise.resize((150, 150)).save(tmp_path / "b.jpg", quality=80)
    noise.rotate(180).save(tmp_path / "c.png")  # of the same colour, and another picture
    index([tmp_path], tmp_path / "x.index", model=colour_model)
    searched = SearchIndex(tmp_path / "x.index")
    query = Query(image=noise, k=3, unique=True)
    assert {hit.name for hit in searched.search(query).hits} in ({"a.png", "c.png"}, {"b.jpg", "c.png"})
    assert [hit.rank for hit in searched.search(query).hits] == [1, 2]
    assert len(searched.search("white").hits) == 3


def test_a_hit_knows_its_picture(searched: SearchIndex, shapes: Path):
    hit = searched.search("teal").hits[0]
    assert hit.path.parent.parent == shapes
    assert hit.name == hit.key
    assert hit.thumbnail[:2] == b"\xff\xd8"
    assert "thumbnail" not in repr(hit)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "is empty"),
        ({"text": " \n"}, "is empty"),
        ({"text": "-people"}, "is empty"),
        ({"text": "red", "k": 0}, "at least 1"),
        ({"text": "red", "offset": -1}, "at least 0"),
        ({"text": "red", "text_weight": 1.5}, "between 0 and 1"),
        ({"text": "red", "min_score": float("nan")}, "min_score"),
        ({"text": "red", "crop": (0, 0, 1, 1)}, "crop is of a picture"),
        ({"like": 1, "crop": (0.5, 0, 0.5, 1)}, "fractions"),
        ({"like": 1, "crop": (0, 0, 1, 1.1)}, "fractions"),
        ({"like": 1, "image": Image.new("RGB", (9, 9))}, "not both"),
    ],
)
def test_an_impossible_question_is_refused(arguments, named: str):
    with pytest.raises(ValueError, match=named):
        Query(**arguments)


def test_an_unknown_item_is_refused(searched: SearchIndex):
    with pytest.raises(ValueError, match="no item 999"):
        searched.search(Query(like=999))


def test_texts_are_embedded_once(built: Path):
    searched = SearchIndex(built)
    asked: list[list[str]] = []
    embed = searched.model.embed_texts
    searched.model.embed_texts = lambda texts: asked.append(list(texts)) or embed(texts)
    for _ in range(3):
        searched.search(Query(text="red", templates=()))
    searched.search(Query(text="red", templates=("the {}",)))
    assert asked == [["red"], ["the a red"]]


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copied.index"))


def test_an_index_without_pictures_finds_nothing(copied: Path):
    with closing(sqlite3.connect(copied / PICTURES_FILE)) as database, database:
        database.execute("DELETE FROM items")
        database.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
    found = SearchIndex(copied).search("red")
    assert (found.hits, found.nothing, found.num_candidates) == ((), True, 0)


def test_a_missing_index_names_the_command(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="pocketclip index"):
        SearchIndex(tmp_path / "none.index")


MakeModel = Callable[..., Path]


class TestModel:
    def test_another_is_refused(self, built: Path, make_colour_model: MakeModel, tmp_path: Path):
        other = make_colour_model(tmp_path / "other", order=(2, 1, 0))
        with pytest.raises(ValueError, match="another model"):
            SearchIndex(built, model=other).search("red")

    def test_one_that_moved_is_named_and_can_be_given(self, tmp_path: Path, shapes: Path, colour_model: Path):
        model = Path(shutil.copytree(colour_model, tmp_path / "model"))
        index([shapes], tmp_path / "x.index", model=model, config=IndexConfig(splits=("validation",)))
        model.rename(tmp_path / "moved")
        with pytest.raises(FileNotFoundError, match=r"model, which is not there.*--model"):
            SearchIndex(tmp_path / "x.index").search("red")
        assert SearchIndex(tmp_path / "x.index", model=tmp_path / "moved").search("red").hits

    def test_index_and_model_may_move_together(self, tmp_path: Path, shapes: Path, colour_model: Path):
        home = tmp_path / "home"
        model = Path(shutil.copytree(colour_model, home / "model"))
        index([shapes], home / "x.index", model=model, config=IndexConfig(splits=("validation",)))
        home.rename(tmp_path / "elsewhere")
        assert SearchIndex(tmp_path / "elsewhere" / "x.index").search("red").hits

    def test_one_named_by_the_environment_is_taken(
        self, tmp_path: Path, shapes: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch
    ):
        model = Path(shutil.copytree(colour_model, tmp_path / "model"))
        index([shapes], tmp_path / "x.index", model=model, config=IndexConfig(splits=("validation",)))
        shutil.rmtree(model)
        monkeypatch.setenv("POCKETCLIP_MODEL", os.fspath(colour_model))
        assert SearchIndex(tmp_path / "x.index").search("red").hits

    def test_a_text_never_loads_the_image_tower(self, built: Path):
        searched = SearchIndex(built)
        searched.search("red -blue")
        assert "_image_tower" not in vars(searched.model)

    def test_more_like_an_item_needs_none(self, copied: Path, monkeypatch: pytest.MonkeyPatch):
        searched = SearchIndex(copied, model=copied / "none")
        assert searched.search(Query(like=1)).hits
