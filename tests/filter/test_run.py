"""Score files say of each sample of a shard what the sample is, row by row, however often a run was cut off."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from pocketclip.checkpoint import load
from pocketclip.data.index import ShardIndex, read_index, split_shards, write_index
from pocketclip.data.picture import decode
from pocketclip.data.reinforced import embeddings_of, reinforcement_of
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.engine import EngineConfig
from pocketclip.filter import Pool, ScoreConfig, score
from pocketclip.filter import run as score_room
from pocketclip.filter.language import code_number
from pocketclip.filter.measure import key_number
from pocketclip.filter.phash import phash


def columns(folder: Path, *names: str, split: str = "train") -> dict[str, np.ndarray]:
    chunks = list(Pool([folder], split=split).chunks(names))
    return {name: np.concatenate([chunk.columns[name] for chunk in chunks]) for name in names}


def samples_of(folder: Path, split: str = "train") -> list:
    samples = []
    for path in split_shards(folder, split):
        with ShardReader(path) as shard:
            samples.extend(shard)
    return samples


def test_scores_are_cosines_of_picture_and_main_caption(
    shapes: Path, scored: Path, teachers: dict[str, Path]
) -> None:
    import torch

    for name, path in teachers.items():
        model = load(path)
        for split in ("train", "validation"):
            found = columns(scored, f"score/{name}", split=split)[f"score/{name}"]
            samples = samples_of(shapes, split)
            pictures = [decode(sample.image, name=sample.key) for sample in samples]
            pixels = np.stack([model.config.preprocess(image) for image in pictures])
            tokens = model.tokenizer([sample.captions[0] for sample in samples])
            with torch.inference_mode():
                image = model.model.encode_image(torch.from_numpy(pixels), normalize=True)
                text = model.model.encode_text(torch.from_numpy(tokens), normalize=True)
            assert np.abs(found - (image * text).sum(dim=1).numpy()).max() < 1e-5
            assert found.dtype == np.float32


def test_measures_are_those_of_the_samples(shapes: Path, scored: Path) -> None:
    names = ("id", "width", "height", "chars", "words", "tokens", "language", "phash", "meta/punsafe")
    found = columns(scored, *names)
    for row, sample in enumerate(samples_of(shapes)):
        image = decode(sample.image, name=sample.key)
        assert (found["width"][row], found["height"][row]) == image.size
        assert found["chars"][row] == len(sample.captions[0])
        assert found["words"][row] == len(sample.captions[0].split())
        assert found["tokens"][row] >= found["words"][row]
        assert found["phash"][row] == phash(image)
        assert found["id"][row] == key_number(sample.key) % 2**64
        assert math.isnan(found["meta/punsafe"][row])
    if read_index(scored).config["languages_by"] == "script":
        assert set(found["language"].tolist()) == {code_number("latn")}


def test_any_reader_of_safetensors_reads_a_file_and_its_keys(shapes: Path, scored: Path) -> None:
    path = sorted((scored / "train").iterdir())[0]
    tables = load_file(path)
    with ShardReader(split_shards(shapes, "train")[0]) as shard:
        assert bytes(tables["keys"].view(np.uint8)).decode().split() == shard.keys
        assert len(tables["score/vit"]) == len(shard)


def test_kept_embeddings_score_as_the_teacher_did(
    scored: Path, shapes: Path, teachers: dict[str, Path]
) -> None:
    import torch

    model = load(teachers["vit"])
    tables = load_file(sorted((scored / "train").iterdir())[0])
    rows = tables["embedding/vit/values"] * tables["embedding/vit/scale"][:, None]
    with ShardReader(split_shards(shapes, "train")[0]) as shard:
        captions = [sample.captions[0] for sample in shard]
    with torch.inference_mode():
        text = model.model.encode_text(torch.from_numpy(model.tokenizer(captions)), normalize=True).numpy()
    assert np.abs((rows * text).sum(axis=1) - tables["score/vit"]).max() < 0.02


def test_what_cannot_be_used_keeps_its_row(
    make_samples: Callable, tmp_path: Path, plain_config: Callable
) -> None:
    samples = make_samples(6)
    samples[2] = replace(samples[2], image=samples[2].image[:60])
    samples[4] = replace(samples[4], meta={"punsafe": 0.25, "other": "text"})
    entry = write_shard(tmp_path / "data" / "train" / "000000.tar", samples)
    write_index(tmp_path / "data", ShardIndex(source="shapes", splits={"train": (entry,)}))
    index = score(tmp_path / "data", tmp_path / "out", config=plain_config(batch_size=4))
    found = columns(tmp_path / "out", "score/even", "width", "meta/punsafe")
    assert np.isnan(found["score/even"]).tolist() == [False, False, True, False, False, False]
    assert found["width"][2] == 0
    assert found["meta/punsafe"][4] == 0.25
    assert index.config["num_unscored"] == 1
    assert "damaged or cut off" in index.config["unscored"]["sample0002"]


def test_the_batch_and_the_loaders_change_nothing_but_the_last_bits(
    shapes: Path, tmp_path: Path, plain_config: Callable
) -> None:
    one = score(shapes, tmp_path / "one", config=plain_config(), engine=EngineConfig(num_loaders=1))
    two = score(shapes, tmp_path / "two", config=plain_config(), engine=EngineConfig(num_loaders=4))
    assert one == two
    score(shapes, tmp_path / "three", config=plain_config(batch_size=5))
    for name in ("score/even", "score/odd"):
        pair = [columns(tmp_path / which, name)[name] for which in ("one", "three")]
        assert np.abs(pair[0] - pair[1]).max() < 1e-6


@pytest.mark.parametrize("captions", ["main", "mean", "best"])
def test_stored_embeddings_score_without_a_teacher(captions: str, reinforced: Path, tmp_path: Path) -> None:
    config = ScoreConfig(stored=("conv", "vit"), embeddings=("vit",), captions=captions, batch_size=9)
    score(reinforced, tmp_path / "out", config=config)
    found = columns(tmp_path / "out", "score/conv", "score/vit")
    wanted = []
    for path in split_shards(reinforced, "train"):
        with ShardReader(path) as shard:
            block = reinforcement_of(shard)
            for row, sample in enumerate(shard):
                conv, _ = embeddings_of(block, np.array([row]))
                cosines = conv.text_TD[: len(sample.captions)] @ conv.image_NAD[0].T
                each = cosines.mean(axis=1)
                wanted.append({"main": each[0], "mean": each.mean(), "best": each.max()}[captions])
    assert np.abs(found["score/conv"] - np.array(wanted)).max() < 1e-5


def test_a_run_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(
    shapes: Path, tmp_path: Path, plain_config: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(shapes, tmp_path / "whole", config=plain_config())
    made, real = [], score_room.score_items

    def interrupted(*arguments: object, **options: object) -> object:
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(score_room, "score_items", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(shapes, tmp_path / "again", config=plain_config())
    monkeypatch.setattr(score_room, "score_items", real)
    again = score(shapes, tmp_path / "again", config=plain_config())
    assert again.splits == whole.splits
    for entry in whole.splits["train"]:
        assert (tmp_path / "again" / entry.file).read_bytes() == (
            tmp_path / "whole" / entry.file
        ).read_bytes()


def test_a_folder_of_pictures_is_scored_too(tmp_path: Path, plain_config: Callable) -> None:
    for number in range(3):
        Image.new("RGB", (20 + number, 30), "red").save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"number {number}")
    index = score(tmp_path, tmp_path.with_name("out-pictures"), config=plain_config())
    assert index.num_samples() == 3
    assert sorted(columns(tmp_path.with_name("out-pictures"), "width")["width"].tolist()) == [20, 21, 22]


def test_words_on_a_list_are_counted(shapes: Path, tmp_path: Path, plain_config: Callable) -> None:
    (tmp_path / "words.txt").write_text("Circle\nred\n\n")
    score(shapes, tmp_path / "out", config=plain_config(words=str(tmp_path / "words.txt")))
    found = columns(tmp_path / "out", "listed")["listed"]
    wanted = [sum(word in ("red", "circle") for word in s.captions[0].split()) for s in samples_of(shapes)]
    assert found.tolist() == wanted


def test_another_configuration_is_refused(shapes: Path, tmp_path: Path, plain_config: Callable) -> None:
    score(shapes, tmp_path / "out", config=plain_config())
    with pytest.raises(ValueError, match="was scored with another configuration or other teachers"):
        score(shapes, tmp_path / "out", config=plain_config(captions="best"))


def test_stored_embeddings_that_are_not_there_are_told(
    shapes: Path, reinforced: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no embeddings of teacher 'other', it has conv, vit"):
        score(reinforced, tmp_path / "one", config=ScoreConfig(stored=("other",)))
    with pytest.raises(ValueError, match="is not reinforced"):
        score(shapes, tmp_path / "two", config=ScoreConfig(stored=("conv",)))


@pytest.mark.slow
def test_ray_makes_the_same_files(shapes: Path, tmp_path: Path, plain_config: Callable) -> None:
    pytest.importorskip("ray")
    here = score(shapes, tmp_path / "here", config=plain_config())
    ray = score(
        shapes,
        tmp_path / "ray",
        config=plain_config(),
        engine=EngineConfig(kind="ray", max_workers=1, dashboard=False),
    )
    assert ray.splits == here.splits
