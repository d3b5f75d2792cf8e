"""A contact sheet shows what is stored: pictures, views as they are replayed, captions, the teachers' opinions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.published_sets import columns, make_sample, write_published
from tests.reinforced_folders import TEACHERS, write_reinforced, write_reinforced_shard

from pocketclip.data.augment import AugmentSpec, apply, unpack
from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.picture import decode
from pocketclip.data.reinforced import reinforcement_of
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.data.sheet import RIGHT, WRONG
from pocketclip.inspect import InspectConfig, inspect
from pocketclip.inspect import run as inspect_run
from pocketclip.inspect.seen import VIEW_PX, Seen

SPEC = AugmentSpec(flip=1.0, erase=1.0)


@pytest.fixture
def samples(make_samples) -> list[Sample]:
    return make_samples(12)


@pytest.fixture
def seen(monkeypatch) -> list[Seen]:
    """The samples of the sheets that a test draws."""
    gathered: list[Seen] = []
    real = inspect_run.draw_sheet

    def spied(found, **options):
        gathered.extend(found)
        return real(found, **options)

    monkeypatch.setattr(inspect_run, "draw_sheet", spied)
    return gathered


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def count(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(sheet - colour).max(axis=2) <= 2).sum())


def test_views_are_the_stored_ones_replayed_with_the_rows_of_theirs(tmp_path, samples, seen):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC, num_views=5)
    inspect(str(data), out=tmp_path / "sheet.png", config=InspectConfig(num_samples=4, num_views=3))
    assert [one.shard for one in seen] == [
        "train/000000.tar",
        "train/000000.tar",
        "train/000001.tar",
        "train/000002.tar",
    ]
    by_key = {sample.key: sample for sample in samples}
    for one in seen:
        with ShardReader(data / one.shard) as reader:
            block, row = reinforcement_of(reader), reader.keys.index(one.key)
        assert [view.number for view in one.views] == [0, 2, 4]
        image = decode(by_key[one.key].image, name="x")
        for place, view in enumerate(one.views):
            stored = unpack(block.augment_params_NAP[row, view.number])
            assert view.pixels.tobytes() == apply(image, stored, size=VIEW_PX, spec=SPEC).tobytes()
            top, left, height, width = stored.crop
            assert view.crop == pytest.approx((left / 72, top / 72, (left + width) / 72, (top + height) / 72))
            assert "mirrored" in view.lines[0]
            assert view.lines[-1].startswith("erased")
            for teacher in TEACHERS:
                expected = block.image_rows(teacher.name, np.array([row]), np.array([view.number]))[0]
                np.testing.assert_array_equal(one.image_rows[teacher.name][place], expected)
        assert [text for _, text in one.texts] == list(by_key[one.key].texts())
        assert [label for label, _ in one.texts] == ["caption", "caption", "rule"]


def test_the_summary_says_what_the_folder_holds(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC, codec="int8")
    summary = inspect(str(data))
    assert (summary.layout, summary.num_samples, summary.num_shards) == ("reinforced", 12, 3)
    assert (summary.splits, summary.codec, summary.num_views) == ({"train": 12}, "int8", 3)
    assert summary.teachers == TEACHERS
    assert summary.captions == {"caption": 2.0, "rule": 1.0}
    assert summary.num_bytes == sum(path.stat().st_size for path in data.rglob("*.tar"))
    assert set(summary.errors) == {"image/a", "image/b", "text/a", "text/b"}
    text = "\n".join(line for _, line in summary.facts())
    for words in (
        "12 samples, 3 shards",
        "a: 24 wide, logit scale 50",
        "mirrored 100%",
        "erased 100%",
        "int8, ",
        "KL",
    ):
        assert words in text
    assert json.loads(json.dumps(summary.to_json()))["augment"]["flip"] == 1.0
    assert not list(tmp_path.glob("*.png"))


def test_plain_shards_and_single_ones(tmp_path, samples, shapes, seen):
    summary = inspect(str(shapes), out=tmp_path / "sheet.png", config=InspectConfig(split="validation"))
    assert (summary.layout, summary.teachers, summary.num_samples) == ("packed", (), 72)
    assert len(seen) == 8
    assert all(not one.views for one in seen)
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC)
    summary = inspect(str(data / "train" / "000001.tar"))
    assert (summary.layout, summary.num_samples, len(summary.looked_at)) == ("reinforced", 5, 5)


def test_samples_by_key(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC)
    keys = (samples[11].key, samples[2].key)
    summary = inspect(str(data), config=InspectConfig(keys=keys))
    assert set(summary.looked_at) == set(keys)
    with pytest.raises(ValueError, match="no shard has a sample nobody"):
        inspect(str(data), config=InspectConfig(keys=("nobody", samples[0].key)))


def test_more_samples_and_views_make_a_larger_sheet(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC)

    def size(**options) -> tuple[int, int]:
        inspect(str(data), out=tmp_path / "sheet.png", config=InspectConfig(**options))
        height, width, _ = pixels(tmp_path / "sheet.png").shape
        return width, height

    few, more, wider = (
        size(num_samples=2, num_views=2),
        size(num_samples=4, num_views=2),
        size(num_samples=2, num_views=3),
    )
    assert more[0] == few[0]
    assert more[1] > 1.4 * few[1]
    assert wider[0] > few[0]


def test_the_nearest_caption_is_marked_and_a_strangers_is_told(tmp_path, samples):
    def aligned(params, counts, rows):
        starts = np.cumsum([0, *counts])[:-1]
        for one in rows:  # every view is its sample's own second caption
            for sample, start in enumerate(starts):
                one.image_NAD[sample] = one.text_TD[start + 1]

    def crossed(params, counts, rows):
        aligned(params, counts, rows)
        for one in rows:
            one.image_NAD[...] = one.image_NAD[::-1].copy()

    for name, change in (("aligned", aligned), ("crossed", crossed)):
        data = tmp_path / name
        entry = write_reinforced_shard(data / "train" / "0.tar", samples[:4], spec=SPEC, change=change)
        write_index(data, ShardIndex(source="x", splits={"train": (entry,)}))
        inspect(str(data), out=tmp_path / f"{name}.png", config=InspectConfig(num_samples=4))
    good, bad = pixels(tmp_path / "aligned.png"), pixels(tmp_path / "crossed.png")
    assert count(good, RIGHT) > 2000
    assert count(good, WRONG) == 0
    assert count(bad, RIGHT) == 0
    assert count(bad, WRONG) > 500


def test_a_damaged_picture_and_one_of_another_size_leave_their_place(tmp_path, samples, encode, seen):
    others = [
        replace(samples[0], image=samples[0].image[:50]),
        replace(samples[1], image=encode(size=30)),
        *samples[2:5],
    ]
    entry = write_reinforced_shard(
        tmp_path / "data" / "train" / "0.tar", samples[:5], spec=SPEC, pictures=others
    )
    write_index(tmp_path / "data", ShardIndex(source="x", splits={"train": (entry,)}))
    inspect(str(tmp_path / "data"), out=tmp_path / "sheet.png", config=InspectConfig(num_samples=5))
    assert seen[0].image is None
    assert "damaged or cut off" in seen[0].about
    assert all(view.pixels is None for view in [*seen[0].views, *seen[1].views])
    assert seen[1].views[0].lines[-1] == "drawn for 72 x 72"
    assert all(view.pixels is not None for one in seen[2:] for view in one.views)


def test_odd_captions_fit(tmp_path, samples):
    texts = ("", "word", "x" * 300, "many words " * 60, "emoji 🐰 ü 日本語 \u202e")
    odd = [replace(samples[number], captions=(text or "-", "b")) for number, text in enumerate(texts)]
    data = write_reinforced(tmp_path / "data", odd, spec=SPEC)
    inspect(str(data), out=tmp_path / "sheet.png")
    assert pixels(tmp_path / "sheet.png").shape[1] < 1200


@pytest.mark.parametrize("with_image", [False, True])
@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_published_sets(tmp_path, seen, with_image, generation):
    pytest.importorskip("torch")
    made = [make_sample(number) for number in range(6)]
    for number in range(2):
        some = made[3 * number : 3 * number + 3]
        write_published(
            tmp_path / "set" / f"{number}.tar",
            some,
            generation=generation,
            with_image=with_image,
            with_caption=with_image,
        )
    summary = inspect(
        str(tmp_path / "set"), out=tmp_path / "sheet.png", config=InspectConfig(num_samples=3, num_views=2)
    )
    assert summary.layout == f"published ({generation})"
    assert (summary.num_shards, summary.num_views) == (2, 3)
    assert [one.key for one in seen] == [made[0].uid, made[1].uid, made[3].uid]
    assert all((one.image is not None) == with_image for one in seen)
    assert all((view.pixels is not None) == with_image for one in seen for view in one.views)
    first = next(iter(seen[0].image_rows.values()))
    np.testing.assert_array_equal(first, columns(made[0].image_emb[[0, 2]])[0])
    chosen = inspect(str(tmp_path / "set"), config=InspectConfig(keys=(made[4].uid,)))
    assert chosen.looked_at == (made[4].uid,)
    with pytest.raises(ValueError, match="there is no sample of nobody"):
        inspect(str(tmp_path / "set"), config=InspectConfig(keys=("nobody",)))


def test_the_sheet_is_published_whole_and_the_same_again(tmp_path, samples):
    data = write_reinforced(tmp_path / "data", samples, spec=SPEC)
    for _ in range(2):
        inspect(str(data), out=tmp_path / "new" / "sheet.png")
    first = (tmp_path / "new" / "sheet.png").read_bytes()
    inspect(str(data), out=tmp_path / "new" / "sheet.png")
    assert (tmp_path / "new" / "sheet.png").read_bytes() == first
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_refusals(tmp_path, samples, shapes):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        inspect(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"sheet.jpg: the sheet is a \.png"):
        inspect(str(shapes), out=tmp_path / "sheet.jpg")
    with pytest.raises(ValueError, match="no split 'test'"):
        inspect(str(shapes), config=InspectConfig(split="test"))
    path = tmp_path / "data" / "0.tar"
    write_shard(path, samples[:1])
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="cut"):
        inspect(str(path))
    for wrong in ({"num_samples": 0}, {"num_views": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            InspectConfig(**wrong)
