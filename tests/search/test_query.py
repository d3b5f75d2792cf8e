"""Queries: the nearest first, exactly, and refusals that name the remedy."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pocketclip.search import IndexConfig, SearchIndex, index
from pocketclip.search.query import _top


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, shapes: Path, colour_model: Path) -> Path:
    """An index of 72 coloured shapes. Do not change it."""
    out = tmp_path_factory.mktemp("built") / "shapes.sqlite"
    index(shapes, out, model=colour_model, config=IndexConfig(batch_size=16))
    return out


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(built, tmp_path / "copied.sqlite"))


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


@pytest.mark.parametrize("colour", ["red", "blue"])
def test_words_find_what_they_mean(built: Path, colour: str):
    hits = SearchIndex(built).search(f"a {colour} thing", k=5)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.caption is not None and colour in hit.caption for hit in hits)


def test_a_picture_finds_itself_and_its_like(built: Path, shapes: Path, colour_model: Path):
    searched = SearchIndex(built, model=colour_model)
    first = searched.search("teal")[0]
    assert first.path.parent.parent == shapes == searched.source
    image = Image.new("RGB", (50, 50), "blue")
    hits = searched.search(image=image, k=3)
    assert all(hit.caption is not None and "blue" in hit.caption for hit in hits)


def test_scores_are_cosines_with_every_picture(built: Path, colour_model: Path):
    searched = SearchIndex(built)
    hits = searched.search("green", k=1000)
    assert len(hits) == len(searched) == 72
    _, vectors_ND = searched._reader.vectors()
    cosines = vectors_ND @ searched.model.embed_texts(["green"])[0]
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(cosines)[::-1], atol=1e-6)


@given(
    arrays(np.float32, st.integers(0, 50), elements=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0])),
    st.integers(1, 60),
)
def test_the_best_rows_are_those_of_a_stable_sort(scores: np.ndarray, k: int):
    assert _top(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


def test_an_index_without_pictures_finds_nothing(copied: Path):
    change(copied, "DELETE FROM vectors")
    change(copied, "DELETE FROM pictures")
    assert SearchIndex(copied).search("red") == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "a text or a picture"),
        ({"text": "red", "image": Image.new("RGB", (9, 9))}, "not both"),
        ({"text": " \n"}, "is empty"),
        ({"text": "red", "k": 0}, "at least 1"),
    ],
)
def test_an_impossible_question_is_refused(built: Path, arguments, named: str):
    with pytest.raises(ValueError, match=named):
        SearchIndex(built).search(**arguments)


def test_a_missing_index_names_the_command(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="pocketclip index"):
        SearchIndex(tmp_path / "none.sqlite")


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\x00" + b"\x00" * 200])
def test_another_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.sqlite").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.sqlite"):
        SearchIndex(tmp_path / "x.sqlite")


def test_a_cut_index_is_refused(copied: Path):
    copied.write_bytes(copied.read_bytes()[:30000])
    with pytest.raises(ValueError, match="index the pictures again"):
        SearchIndex(copied).search("red", k=100)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE meta SET value = '2' WHERE key = 'version'", "version 2 .* reads version 1"),
        ("UPDATE meta SET value = 'x' WHERE key = 'format'", "not an index of pictures"),
        ("DELETE FROM meta WHERE key = 'embed_dim'", "embed_dim"),
        ("UPDATE meta SET value = 'x' WHERE key = 'embed_dim'", "damaged"),
        ("UPDATE vectors SET vector = x'00' WHERE id = 3", "vector 3"),
        ("DELETE FROM pictures", "no picture"),
        ("DROP TABLE vectors", "index the pictures again"),
    ],
)
def test_a_damaged_index_is_refused(copied: Path, statement: str, named: str):
    change(copied, statement)
    with pytest.raises(ValueError, match=named):
        SearchIndex(copied).search("red")


def test_another_model_is_refused(built: Path, make_colour_model, tmp_path: Path):
    other = make_colour_model(tmp_path / "other", order=(2, 1, 0))
    with pytest.raises(ValueError, match="another model"):
        SearchIndex(built, model=other).search("red")


def test_a_model_that_moved_is_named_and_can_be_given(tmp_path: Path, shapes: Path, colour_model: Path):
    model = Path(shutil.copytree(colour_model, tmp_path / "model"))
    index(shapes, tmp_path / "x.sqlite", model=model, config=IndexConfig(splits=("validation",)))
    model.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"model, which is not there.*--model"):
        SearchIndex(tmp_path / "x.sqlite").search("red")
    assert SearchIndex(tmp_path / "x.sqlite", model=tmp_path / "moved").search("red")


def test_index_and_model_may_move_together(tmp_path: Path, shapes: Path, colour_model: Path):
    home = tmp_path / "home"
    model = Path(shutil.copytree(colour_model, home / "model"))
    index(shapes, home / "x.sqlite", model=model, config=IndexConfig(splits=("validation",)))
    home.rename(tmp_path / "elsewhere")
    assert SearchIndex(tmp_path / "elsewhere" / "x.sqlite").search("red")
