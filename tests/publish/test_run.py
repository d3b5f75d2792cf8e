"""Reinforced folders in the published layouts, read back by a reader that knows nothing of pocketclip."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.published_sets import read_arrays, read_tar, rounded, text_row
from tests.reinforced_folders import TEACHERS, write_reinforced

from pocketclip.data.augment import AugmentSpec, apply, unpack
from pocketclip.data.index import split_shards
from pocketclip.data.picture import decode
from pocketclip.data.reinforced import embeddings_of, reinforcement_of
from pocketclip.data.sample import Sample
from pocketclip.data.shard import ShardReader
from pocketclip.join import JoinConfig, PictureSources, join
from pocketclip.publish import PublishConfig, publish
from pocketclip.publish import run as publish_run

pytest.importorskip("torch")  # reads the pth.gz

SPEC = AugmentSpec(flip=0.5, rand_augment=0.7, translate_px=224, resize_order="pillow_12")


def reinforced(folder: Path, samples: list[Sample], *, spec: AugmentSpec = SPEC, codec: str = "fp32") -> Path:
    return write_reinforced(folder, samples, spec=spec, codec=codec)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def samples(make_samples) -> list[Sample]:
    made = make_samples(12)
    return [
        replace(sample, meta={"uid": f"uid-{number}", "url": f"http://127.0.0.1/{number}", "licence": "CC0"})
        for number, sample in enumerate(made)
    ]


def originals(folder: Path):
    """Sample, its views and its rows [A, 64], [T, 64], of every sample."""
    for path in split_shards(folder, "train"):
        with ShardReader(path) as reader:
            block = reinforcement_of(reader)
            embeddings = embeddings_of(block, np.arange(len(reader)))
            for row, sample in enumerate(reader):
                start, stop = block.text_offsets[row : row + 2]
                yield (
                    sample,
                    [unpack(params) for params in block.augment_params_NAP[row]],
                    np.concatenate([one.image_NAD[row] for one in embeddings], axis=1),
                    np.concatenate([one.text_TD[start:stop] for one in embeddings], axis=1),
                )


@pytest.mark.parametrize("layout", ["v1-npz", "v1-pth.gz", "v2-npz", "v2-pth.gz"])
@pytest.mark.parametrize("with_images", [False, True])
def test_an_independent_reader_finds_everything(tmp_path, samples, layout, with_images):
    data = reinforced(tmp_path / "data", samples)
    report = publish(data, tmp_path / "out", config=PublishConfig(layout=layout, with_images=with_images))
    assert (report.num_shards, report.num_samples, report.num_captions_left) == (3, 12, 12)
    assert list(report.teachers) == [("a", 24), ("b", 40)]
    published = {
        uid: files
        for number in range(3)
        for uid, files in read_tar(tmp_path / "out" / f"{number:06d}.tar").items()
    }
    generation, _, storage = layout.partition("-")
    key = "syn_text" if generation == "v1" else "syn_text_rule"
    exact = rounded if storage == "pth.gz" else lambda rows: rows
    assert list(published) == [sample.key for sample in samples]
    for sample, views, image_AW, text_TW in originals(data):
        files = published[sample.key]
        assert set(files) == {"url.txt", "txt", "syn.json", "paug.json", storage, "json"} | (
            {"png"} if with_images else set()
        )
        assert files["txt"].decode() == sample.captions[0]
        assert files["url.txt"].decode() == sample.meta["url"]
        assert json.loads(files["syn.json"]) == {key: list(sample.synthetic["rule"])}
        assert json.loads(files["json"]) == {
            "uid": sample.meta["uid"],
            "sha256": hashlib.sha256(sample.image).hexdigest(),
            "licence": "CC0",
        }
        arrays = read_arrays(files)
        np.testing.assert_array_equal(arrays["image_emb"], exact(image_AW))
        np.testing.assert_array_equal(text_row(arrays, None, 0), exact(text_TW[:1])[0])
        np.testing.assert_array_equal(text_row(arrays, key, 0), exact(text_TW[2:])[0])
        assert len(arrays["text_emb"]) == (2 if generation == "v1" else 1)
        param_aug = json.loads(files["paug.json"])["param_aug"]
        assert [view[0] for view in param_aug] == [list(view.crop) for view in views]
        assert [view[1] for view in param_aug] == [view.flip for view in views]
        if with_images:
            assert files["png"] == sample.image
    manifest = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert manifest == [{"shard": f"{number:06d}", "num_uids": num} for number, num in enumerate((5, 5, 2))]
    config = (tmp_path / "out" / "config.json").read_text()
    assert config.count("\n") == 1
    assert json.loads(config)["rand_augment"]["p"] == 0.7
    assert not (tmp_path / "out" / ".publish").exists()


@pytest.mark.reference
def test_torchvision_replays_what_was_published(tmp_path, samples):
    functional = pytest.importorskip("torchvision.transforms.functional")
    from tests.data.foreign.test_published_views import horizontal_first
    from tests.data.test_augment import torchvision_operation

    data = reinforced(tmp_path / "data", samples)
    publish(data, tmp_path / "out", config=PublishConfig(with_images=True))
    published = read_tar(tmp_path / "out" / "000000.tar")
    for sample, views, _, _ in list(originals(data))[:5]:
        image = Image.open(io.BytesIO(published[sample.key]["png"])).convert("RGBA").convert("RGB")
        for view, (crop, flip, drawn) in zip(
            views, json.loads(published[sample.key]["paug.json"])["param_aug"], strict=True
        ):
            expected = horizontal_first(image, crop, 224)
            expected = functional.hflip(expected) if flip else expected
            for number, value in drawn or []:
                expected = torchvision_operation(expected, number, value)
            ours = apply(decode(sample.image, name="x"), view, size=224, spec=SPEC)
            assert ours.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", ["v1-npz", "v2-pth.gz"])
def test_what_was_published_joins_to_what_it_was(tmp_path, samples, layout):
    samples = [replace(sample, captions=sample.captions[:1]) for sample in samples]
    data = reinforced(tmp_path / "data", samples, codec="bf16")
    publish(data, tmp_path / "out", config=PublishConfig(layout=layout, with_images=True))
    joined = join(
        str(tmp_path / "out"),
        tmp_path / "back",
        config=JoinConfig(teachers=TEACHERS),
        pictures=PictureSources(num_threads=1),
    )
    assert joined.num_missing == 0
    for before, after in zip(originals(data), originals(tmp_path / "back"), strict=True):
        assert (after[0].image, after[0].captions) == (before[0].image, before[0].captions)
        assert list(after[0].synthetic.values()) == list(before[0].synthetic.values())
        assert after[1] == before[1]
        np.testing.assert_array_equal(after[2], before[2])
        np.testing.assert_array_equal(after[3], before[3])


def test_a_picture_that_published_tools_would_see_otherwise_is_stored_as_ours_sees_it(tmp_path, samples):
    layers = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    Image.fromarray(layers, "RGBA").save(file := io.BytesIO(), "PNG")
    odd = replace(samples[0], image=file.getvalue(), meta={"sha256": "of the download"})
    data = reinforced(tmp_path / "data", [odd])
    publish(data, tmp_path / "out", config=PublishConfig(with_images=True))
    files = read_tar(tmp_path / "out" / "000000.tar")[odd.key]
    seen = Image.open(io.BytesIO(files["png"])).convert("RGBA").convert("RGB")
    assert seen.tobytes() == decode(odd.image, name="x").tobytes()
    assert json.loads(files["json"])["sha256"] == hashlib.sha256(files["png"]).hexdigest()
    publish(data, tmp_path / "bare", config=PublishConfig())
    files = read_tar(tmp_path / "bare" / "000000.tar")[odd.key]
    assert json.loads(files["json"]) == {"uid": odd.key, "sha256": "of the download"}


def test_captioners_are_chosen_by_regular_expression(tmp_path, samples):
    several = [
        replace(
            sample, synthetic={"syn_text_x": ("one", "two"), "b": ("three",), "c": ("four", "five", "six")}
        )
        for sample in samples
    ]
    data = reinforced(tmp_path / "data", several)
    publish(data, tmp_path / "out", config=PublishConfig(synthetic="x|c"))
    _, _, _, text_TW = next(originals(data))
    files = read_tar(tmp_path / "out" / "000000.tar")[samples[0].key]
    assert json.loads(files["syn.json"]) == {
        "syn_text_x": ["one", "two"],
        "syn_text_c": ["four", "five", "six"],
    }
    arrays = read_arrays(files)
    # Sample.texts: two captions, then b, c, syn_text_x
    np.testing.assert_array_equal(arrays["syn_text_c_emb"], text_TW[3:6])
    np.testing.assert_array_equal(arrays["syn_text_x_emb"], text_TW[6:8])
    with pytest.raises(ValueError, match="captions of b, c, syn_text_x, and v1 has room for one captioner"):
        publish(data, tmp_path / "v1", config=PublishConfig(layout="v1-npz"))
    shutil.rmtree(tmp_path / "v1")
    publish(data, tmp_path / "v1", config=PublishConfig(layout="v1-npz", synthetic="^c$"))
    arrays = read_arrays(read_tar(tmp_path / "v1" / "000000.tar")[samples[0].key])
    np.testing.assert_array_equal(arrays["text_emb"], text_TW[[0, 3, 4, 5]])


def test_a_finished_folder_is_left_alone_and_an_interrupted_one_gone_on_with(tmp_path, samples, monkeypatch):
    data = reinforced(tmp_path / "data", samples)
    whole = publish(data, tmp_path / "whole", config=PublishConfig())
    calls = []
    real = publish_run.write_published_tar

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(publish_run, "write_published_tar", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(data, tmp_path / "out", config=PublishConfig())
    assert (tmp_path / "out" / "000000.tar").exists()
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert publish(data, tmp_path / "out", config=PublishConfig()) == whole
    assert len(calls) == 4
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert publish(data, tmp_path / "out", config=PublishConfig()) == whole
    assert len(calls) == 4


def test_refusals(tmp_path, samples, shapes):
    data = reinforced(tmp_path / "data", samples)
    publish(data, tmp_path / "out", config=PublishConfig())
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match="published with another configuration"):
        publish(data, tmp_path / "out", config=PublishConfig(layout="v1-npz"))
    assert contents(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds other files \(file\)"):
        publish(data, tmp_path / "mine", config=PublishConfig())
    with pytest.raises(ValueError, match="is not reinforced"):
        publish(shapes, tmp_path / "plain", config=PublishConfig())
    with pytest.raises(ValueError, match="no split 'test'"):
        publish(data, tmp_path / "plain", config=PublishConfig(split="test"))
    with pytest.raises(FileNotFoundError, match="not a packed folder"):
        publish(tmp_path / "mine", tmp_path / "plain", config=PublishConfig())
    jittered = reinforced(tmp_path / "jittered", samples, spec=AugmentSpec(jitter=0.5))
    with pytest.raises(ValueError, match="no colour jitter"):
        publish(jittered, tmp_path / "plain", config=PublishConfig())
    assert not (tmp_path / "plain").exists()
    for wrong in ({"synthetic": "("}, {"side": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PublishConfig(**wrong)
