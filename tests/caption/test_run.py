"""Captioning: pictures from everywhere, damaged ones told, several captioners, sheets."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from PIL import Image

from pocketclip.caption import CaptionConfig, caption, caption_sheet
from pocketclip.caption.sheet import draw_sheet
from pocketclip.checkpoint import create, save

TEACHERS = Path(__file__).parent.parent / "teachers"
PLAIN = "python:plain_captioners:make"


@pytest.fixture(autouse=True)
def plain_captioners(monkeypatch):
    monkeypatch.syspath_prepend(str(TEACHERS))


@pytest.fixture
def photos(tmp_path, encode):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "b.png").write_bytes(encode(size=20))
    (folder / "a.jpg").write_bytes(encode("JPEG", size=30))
    (folder / "more" / "a.jpg").write_bytes(encode("JPEG", size=40))
    (folder / "cut.jpg").write_bytes(encode("JPEG", size=30)[:200])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_is_captioned_in_order_and_what_is_damaged_is_told(photos):
    skipped = []
    config = CaptionConfig(models={"plain": PLAIN}, num_captions=2, batch_size=2)
    done = list(caption([photos], config=config, skipped=skipped.append))
    assert [one.name for one in done] == ["a.jpg", "b.png", "more/a.jpg"]
    assert done[0].captions == {"plain": ("30 by 30, number 0", "30 by 30, number 1")}
    assert len({one.key for one in done}) == 3
    assert [(one.source, "damaged" in one.reason) for one in skipped] == [("cut.jpg", True)]


def test_shards_tars_and_files_are_captioned_with_their_own_captions(shapes, photos):
    config = CaptionConfig(models={"plain": PLAIN}, splits=("validation",))
    done = list(caption([shapes], config=config, limit=5))
    assert len(done) == 5
    assert done[0].references[0].startswith("a ")
    config = CaptionConfig(models={"plain": PLAIN})
    tar = next((shapes / "train").glob("*.tar"))
    mixed = list(caption([tar, photos / "b.png"], config=config))
    assert [one.key for one in mixed[:2]] == ["train0000", "train0001"]
    assert mixed[-1].texts() == ("20 by 20, number 0",)
    assert len(list(caption([shapes], config=config))) == 72


def test_several_captioners_are_an_ensemble(photos):
    config = CaptionConfig(models={"one": PLAIN, "two": PLAIN}, num_captions=2)
    first = next(iter(caption([photos], config=config)))
    assert list(first.captions) == ["one", "two"]
    assert len(first.texts()) == 4


def test_a_caption_does_not_depend_on_what_else_is_captioned(shapes, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    made = create("pocketclip_tiny_captioner")
    save(tmp_path / "c.safetensors", made.model, config=made.config, tokenizer=made.tokenizer)

    def written(**settings):
        config = CaptionConfig(
            models={"c": str(tmp_path / "c.safetensors")},
            splits=("validation",),
            num_captions=2,
            max_length=6,
            **settings,
        )
        return {one.key: one.texts() for one in caption([shapes], config=config, limit=6)}

    assert written(batch_size=6) == written(batch_size=1)
    assert written(seed=1) != written(seed=2)


@pytest.mark.parametrize(
    ("settings", "temperatures"),
    [
        ({}, [0.0]),
        ({"num_captions": 3}, [1.0]),
        ({"num_captions": 3, "beams": 4}, [0.0]),
        ({"temperature": 0.5}, [0.5]),
    ],
)
def test_temperature_is_chosen_by_what_is_asked(settings, temperatures):
    config = CaptionConfig(models={"c": "x"}, **settings)
    assert [spec.temperature for spec in config.specs()] == temperatures


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"models": {}}, "needs a model"), ({"models": {"a": "b"}, "batch_size": 0}, "batch_size")],
)
def test_settings_that_make_no_sense_are_told(fields, reason):
    with pytest.raises(ValueError, match=reason):
        CaptionConfig(**fields)


def test_sources_that_hold_nothing_are_told(tmp_path, photos):
    config = CaptionConfig(models={"plain": PLAIN})
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        list(caption([tmp_path / "x"], config=config))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no pictures"):
        list(caption([tmp_path / "empty"], config=config))
    with pytest.raises(ValueError, match="is no packed folder and has no splits"):
        list(caption([photos], config=CaptionConfig(models={"p": PLAIN}, splits=("train",))))


def test_a_sheet_grows_with_its_pictures_and_shows_references_in_green(shapes, tmp_path):
    config = CaptionConfig(models={"plain": PLAIN}, splits=("train",))
    done = list(caption([shapes], config=config, limit=4))
    one, four = draw_sheet(done[:1]), draw_sheet(done)
    assert four.width > one.width
    assert four.height > one.height
    green = draw_sheet(done[:1], references={done[0].key: ("what a person said",)})
    bare = draw_sheet(done[:1], references={})
    assert green.tobytes() != bare.tobytes()
    caption_sheet([picture.thumbnail() for picture in done], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == four.size
    with pytest.raises(ValueError, match="at least one captioned picture"):
        caption_sheet([], tmp_path / "x.png")
