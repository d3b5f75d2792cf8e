"""Albums, near-duplicates, outliers and tags: what belongs together is together, and has the right name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketclip.search import Filter, Query, SearchIndex, index
from pocketclip.search.results import LISTING, write_groups

COLOURS = {"red": (180, 60, 60), "green": (60, 180, 60), "blue": (60, 60, 180)}


def noise(colour: tuple[int, int, int], *, seed: int, size: int = 64) -> Image.Image:
    """A picture of its own, of about one colour."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(-60, 60, (8, 8, 3)) + colour
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize((size, size))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, colour_model: Path) -> Path:
    """An index of 20 red, 15 green and 10 blue pictures. Do not change it."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "source").mkdir()
    for (name, colour), num in zip(COLOURS.items(), (20, 15, 10), strict=True):
        for number in range(num):
            noise(colour, seed=hash((num, number)) % 2**32).save(folder / "source" / f"{name}{number}.png")
    index([folder / "source"], folder / "x.index", model=colour_model)
    return folder / "x.index"


def colours(hits) -> set[str]:
    return {hit.path.stem.rstrip("0123456789") for hit in hits}


class TestAlbums:
    def test_like_pictures_lie_together_and_are_named(self, photos: Path):
        albums = SearchIndex(photos).albums(3, labels=list(COLOURS))
        assert [(album.title, len(album.hits)) for album in albums] == [
            ("red", 20),
            ("green", 15),
            ("blue", 10),
        ]
        assert all(colours(album.hits) == {album.title} for album in albums)

    def test_the_most_typical_come_first(self, photos: Path):
        for album in SearchIndex(photos).albums(2):
            scores = [hit.score for hit in album.hits]
            assert scores == sorted(scores, reverse=True)
            assert [hit.rank for hit in album.hits] == list(range(1, len(scores) + 1))

    def test_every_picture_is_in_one_and_no_name_comes_twice(self, photos: Path):
        albums = SearchIndex(photos).albums(7)
        assert sum(len(album.hits) for album in albums) == 45
        assert len({hit.id for album in albums for hit in album.hits}) == 45
        assert len({album.title for album in albums}) == len(albums)

    def test_more_albums_than_names_are_numbered(self, photos: Path):
        titles = [album.title for album in SearchIndex(photos).albums(3, labels=["red"])]
        assert sorted(titles) == ["album 2", "album 3", "red"]

    def test_fewer_than_one_are_refused(self, photos: Path):
        with pytest.raises(ValueError, match="at least 1"):
            SearchIndex(photos).albums(0)


class TestDuplicates:
    @pytest.fixture
    def searched(self, tmp_path: Path, colour_model: Path) -> SearchIndex:
        """A picture in three versions and a copy, another of the same colour, and two that are alone."""
        source = tmp_path / "source"
        source.mkdir()
        large = noise(COLOURS["red"], seed=1, size=200)
        large.save(source / "large.png")
        large.resize((100, 100)).save(source / "small.jpg", quality=85)
        large.point(lambda level: min(255, round(level * 1.05))).save(source / "lighter.webp", quality=80)
        shutil.copy(source / "small.jpg", source / "small copy.jpg")
        noise(COLOURS["red"], seed=2).save(source / "other.png")
        noise(COLOURS["blue"], seed=3).save(source / "blue.png")
        noise(COLOURS["green"], seed=4).save(source / "green.png")
        shutil.copy(source / "green.png", source / "green copy.png")
        index([source], tmp_path / "x.index", model=colour_model)
        return SearchIndex(tmp_path / "x.index")

    def test_versions_are_a_group_and_the_largest_comes_first(self, searched: SearchIndex):
        near, equal = searched.duplicates()
        assert near.hits[0].path.stem in ("large", "lighter")
        assert {hit.path.stem.removesuffix(" copy") for hit in near.hits} == {"large", "small", "lighter"}
        assert near.title == "3 near-duplicates"
        assert equal.title == "2 equal files"
        assert len(searched.reader.places(equal.hits[0].id)) == 2

    def test_none_are_none(self, photos: Path):
        assert SearchIndex(photos).duplicates() == []


class TestOutliers:
    def test_what_is_like_no_other_is_found(self, tmp_path: Path, colour_model: Path):
        for number in range(40):
            noise(COLOURS["red"], seed=number).save(tmp_path / f"red{number}.png")
        noise(COLOURS["blue"], seed=99).save(tmp_path / "blue.png")
        index([tmp_path], tmp_path / "x.index", model=colour_model)
        found = SearchIndex(tmp_path / "x.index").outliers()
        assert found.hits[0].name == "blue.png"
        assert len(found.hits) < 10
        assert SearchIndex(tmp_path / "x.index").outliers(most=1).hits == found.hits[:1]


class TestTags:
    @pytest.fixture
    def searched(self, photos: Path, tmp_path: Path) -> SearchIndex:
        return SearchIndex(shutil.copytree(photos, tmp_path / "copy.index"))

    def test_pictures_get_the_words_that_they_show(self, searched: SearchIndex):
        summary = searched.tag(["red", "Blue", "blue", "# remark", "white"], most=1)
        assert summary.num_items == 45
        assert set(summary.counts) == {"red", "blue"}
        assert 5 <= summary.counts["red"] <= 20
        for word in ("red", "blue"):
            ids = searched.reader.select(Filter(tags=(word,)))
            assert len(ids) == summary.counts[word]
            assert colours(searched.hits([(1.0, int(number)) for number in ids])) == {word}
        found = searched.search(Query(text="green", where=Filter(tags=("red",))))
        assert colours(found.hits) == {"red"}

    def test_tagging_again_replaces(self, searched: SearchIndex):
        searched.tag(["red"])
        assert [tag for tag, _ in searched.reader.tag_counts()] == ["red"]
        searched.tag(["blue"])
        assert [tag for tag, _ in searched.reader.tag_counts()] == ["blue"]

    def test_a_picture_has_no_more_than_the_most(self, searched: SearchIndex):
        labels = ["red", "blue", "green", "red blue", "red green", "blue green"]
        for most in (1, 2):
            searched.tag(labels, most=most)
            tags = searched.reader.tags(searched.reader.select(Filter()).tolist())
            assert max(len(found) for found in tags.values()) == most

    def test_too_few_pictures_or_words_are_refused(
        self, searched: SearchIndex, tmp_path: Path, colour_model: Path
    ):
        with pytest.raises(ValueError, match="all empty"):
            searched.tag([" ", "# x"])
        with pytest.raises(ValueError, match="at least 1 tag"):
            searched.tag(["red"], most=0)
        (tmp_path / "few").mkdir()
        noise(COLOURS["red"], seed=0).save(tmp_path / "few" / "x.png")
        index([tmp_path / "few"], tmp_path / "few.index", model=colour_model)
        with pytest.raises(ValueError, match="at least 30"):
            SearchIndex(tmp_path / "few.index").tag(["red"])


def test_groups_become_folders_of_links(photos: Path, tmp_path: Path):
    searched = SearchIndex(photos)
    albums = searched.albums(3, labels=["red", "green", "blue/blue"])
    write_groups(albums, tmp_path / "albums", reader=searched.reader)
    made = sorted(path.name for path in (tmp_path / "albums").iterdir())
    assert made == ["1 red", "2 green", "3 blue-blue", LISTING]
    for folder, album in zip(made, albums, strict=False):
        links = sorted((tmp_path / "albums" / folder).iterdir())
        assert [link.resolve() for link in links] == [hit.path.resolve() for hit in album.hits]
