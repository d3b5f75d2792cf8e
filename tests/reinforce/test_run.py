"""Reinforcement: each row belongs to its sample, runs repeat to the byte, and a kill costs nothing but time."""

import gc
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from pocketclip.checkpoint import create, save
from pocketclip.data.augment import AugmentSpec, apply, unpack
from pocketclip.data.index import ShardIndex, read_index, split_shards, write_index
from pocketclip.data.picture import decode
from pocketclip.data.reinforcement import Reinforcement
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.reinforce import CheckpointTeacher, ReinforceConfig, TeacherSpec, reinforce

VIEWS = AugmentSpec(scale=(0.5, 1.0))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two teachers of random weights, of different architecture."""
    folder = tmp_path_factory.mktemp("teachers")
    specs = []
    for seed, (name, variant) in enumerate((("conv", "pocketclip_tiny"), ("vit", "pocketclip_tiny_vit"))):
        torch.manual_seed(seed)
        loaded = create(variant)
        save(folder / f"{name}.safetensors", loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
        specs.append(TeacherSpec(name=name, checkpoint=folder / f"{name}.safetensors"))
    return tuple(specs)


@pytest.fixture(scope="module")
def config(teachers):
    return ReinforceConfig(teachers=teachers, num_views=3, augment=VIEWS, codec="fp32", batch_size=16)


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "train").glob("*.tar"))}


@pytest.mark.parametrize("batch_size", [4, 7, 256])
def test_every_row_is_its_samples_own(tmp_path, pack_shapes, teachers, config, make_samples, batch_size):
    samples = make_samples(12)
    object.__setattr__(samples[5], "image", samples[5].image[:70])  # a damaged one in the middle
    data = tmp_path / "data"
    entry = write_shard(data / "train" / "000000.tar", samples)
    write_index(data, ShardIndex(source="x", splits={"train": (entry,)}))
    index = reinforce(data, tmp_path / "out", config=replace(config, batch_size=batch_size))
    assert index.num_samples() == 11
    assert [drop.source for drop in index.dropped] == [f"train/000000.tar: {samples[5].key}"]
    (path,) = split_shards(tmp_path / "out", "train")
    with ShardReader(path) as reader:
        block = Reinforcement(reader.block("reinforcement"), name=str(path))
        for spec in teachers:
            teacher = CheckpointTeacher(spec)
            for row in range(len(reader)):
                sample = reader[row]
                image = decode(sample.image, name=sample.key)
                for view in range(3):
                    params = unpack(block.augment_params_NAP[row, view])
                    pixels = np.asarray(apply(image, params, size=teacher.image_px, spec=VIEWS))[None]
                    stored = block.image_rows(spec.name, np.array([row]), np.array([view]))
                    np.testing.assert_allclose(stored, teacher.encode_image(pixels), atol=2e-5)
                for number, text in enumerate(sample.texts()):
                    stored = block.text_rows(spec.name, np.array([row]), np.array([number]))
                    np.testing.assert_allclose(stored, teacher.encode_text([text]), atol=2e-5)
        del block


def test_a_second_run_does_nothing_and_another_configuration_does_not_mix(tmp_path, shapes, config):
    out = tmp_path / "out"
    reinforce(shapes, out, config=config)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    index = reinforce(shapes, out, config=config)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert index == read_index(out)
    with pytest.raises(ValueError, match="another configuration"):
        reinforce(shapes, out, config=replace(config, num_views=2))
    (out / "index.json").unlink()
    with pytest.raises(ValueError, match=r"000000\.tar was made with another configuration"):
        reinforce(shapes, out, config=replace(config, num_views=2))
    assert reinforce(shapes, out, config=config) == index
    other = tmp_path / "other"
    reinforce(shapes, other, config=config)
    assert shard_bytes(other) == shard_bytes(out)


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(tmp_path, pack_shapes, teachers, config):
    data = pack_shapes(tmp_path / "data", per_shard=12, train=96)
    reinforce(data, tmp_path / "whole", config=replace(config, codec="bf16", batch_size=256))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "pocketclip", "reinforce", str(data), str(out), "--views", "3", "--augment.scale",
               "0.5", "1.0", "--teacher", *(f"{spec.name}={spec.checkpoint}" for spec in teachers)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for wanted in (1, 3, 6):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(shard_bytes(out) if out.exists() else ()) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "index.json").exists() or wanted == 6
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert shard_bytes(out) == shard_bytes(tmp_path / "whole")
    assert [path.name for path in out.rglob(".*")] == []


def test_an_ensemble_that_makes_no_sense_is_refused(shapes, tmp_path, teachers):
    with pytest.raises(ValueError, match="different names"):
        ReinforceConfig(teachers=(teachers[0], teachers[0]))
    missing = replace(teachers[0], checkpoint=tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors does not exist"):
        reinforce(shapes, tmp_path / "out", config=ReinforceConfig(teachers=(missing,)))


@pytest.mark.filterwarnings("ignore")  # of the other library, which leaves files open
def test_webdataset_reads_a_reinforced_shard(tmp_path, shapes, config):
    webdataset = pytest.importorskip("webdataset")
    reinforce(shapes, tmp_path / "out", config=config)
    path, *_ = split_shards(tmp_path / "out", "train")
    rows = list(webdataset.WebDataset(str(path), shardshuffle=False))
    gc.collect()
    assert len(rows) == 20
    assert all({"png", "txt", "json"} <= set(row) for row in rows)
