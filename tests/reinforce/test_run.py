"""A reinforced folder: killed and run again it is the same to the byte; finished, it is left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import shape_samples

from pocketclip.data.index import ShardIndex, read_index, split_shards, write_index
from pocketclip.data.publish import PublishError, sha256_file
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.reinforce import ReinforceConfig, TeacherSpec, build_teacher, reinforce
from pocketclip.reinforce.towers import TowerTeacher

torch.set_num_threads(1)


def specs(teachers):
    return tuple(TeacherSpec(name=name, source=str(path)) for name, path in teachers.items())


@pytest.fixture
def config(teachers):
    return ReinforceConfig(teachers=specs(teachers), num_views=2, batch_size=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three shards of training samples and one of validation samples, some pictures damaged."""
    folder = tmp_path_factory.mktemp("damaged")
    splits = {}
    for split, num in (("train", 18), ("validation", 5)):
        samples = [
            replace(sample, image=sample.image[:50]) if i % 8 == 3 else sample
            for i, sample in enumerate(shape_samples(num, prefix=split))
        ]
        starts = range(0, num, 7)
        splits[split] = tuple(
            write_shard(folder / split / f"{number:06d}.tar", samples[start : start + 7])
            for number, start in enumerate(starts)
        )
    write_index(
        folder,
        ShardIndex(source="shapes", splits=splits, licences={"CC0": 23}, attribution=("Shapes by us.",)),
    )
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_a_folder_has_a_shard_of_the_same_name_for_each_and_an_index(data, config, tmp_path):
    index = reinforce(data, tmp_path / "out", config=config)
    assert read_index(tmp_path / "out") == index
    assert contents(tmp_path / "out").keys() == {
        "index.json",
        *(f"train/00000{number}.tar" for number in range(3)),
    }
    assert index.num_samples() == 16
    assert (index.source, index.licences, index.attribution) == ("shapes", {"CC0": 23}, ("Shapes by us.",))
    for entry, path in zip(index.splits["train"], split_shards(tmp_path / "out", "train"), strict=True):
        assert entry.sha256 == sha256_file(path)
        with ShardReader(path) as reader:
            header = Reinforcement(reader.block(BLOCK_NAME), name="shard").header
        assert header.input_sha256 == sha256_file(data / "train" / path.name)
    assert {drop.source for drop in index.dropped} == {
        "train/000000.tar: train0003",
        "train/000001.tar: train0011",
    }
    assert all("damaged or cut off" in drop.reason for drop in index.dropped)


def test_the_same_configuration_anywhere_gives_the_same_bytes(data, config, tmp_path):
    for name in ("one", "two"):
        reinforce(data, tmp_path / name, config=config)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


# A shard is flushed and then its folder, at the end the index and its folder; four shards in all.
MOMENTS = [
    ["batch", 1],  # nothing
    ["batch", 3],  # the first shard half made
    ["flush", 1],  # written, not named
    ["flush", 2],  # the first shard
    ["batch", 3],  # the second half made
    ["flush", 3],  # the second shard, the third written but not named
    ["flush", 4],  # the third and the first of validation
    ["flush", 1],  # the index written, not named
]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(data, teachers, config, tmp_path):
    both = replace(config, splits=("train", "validation"))
    expected = reinforce(data, tmp_path / "whole", config=both)
    script = Path(__file__).with_name("interrupted.py")
    named = [f"{name}={path}" for name, path in teachers.items()]
    done = subprocess.run(
        [sys.executable, script, data, tmp_path / "killed", json.dumps(MOMENTS), *named],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [-signal.SIGKILL] * len(MOMENTS) + [0], done.stderr
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert len(read_index(tmp_path / "killed").dropped) == len(expected.dropped) == 3


def test_a_finished_folder_is_left_alone(data, config, tmp_path, monkeypatch):
    index = reinforce(data, tmp_path / "out", config=config)
    before = times(tmp_path)
    monkeypatch.setattr(TowerTeacher, "encode_image", None)
    assert reinforce(data, tmp_path / "out", config=config) == index
    assert times(tmp_path) == before


def test_an_interruption_keeps_finished_shards_and_their_drops(data, config, tmp_path, monkeypatch):
    whole = reinforce(data, tmp_path / "whole", config=config)
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "whole", out)
    (out / "index.json").unlink()
    (out / "train" / "000001.tar").unlink()
    kept = (out / "train" / "000000.tar").stat().st_mtime_ns
    calls = []
    real = TowerTeacher.encode_image
    monkeypatch.setattr(
        TowerTeacher,
        "encode_image",
        lambda self, pixels: calls.append(len(pixels)) or real(self, pixels),
    )
    assert reinforce(data, out, config=config) == whole
    assert sum(calls) == 6 * 2 * 2  # samples of the shard that was missing, views, teachers
    assert (out / "train" / "000000.tar").stat().st_mtime_ns == kept


@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused_and_nothing_touched(data, config, teachers, tmp_path, finished):
    out = tmp_path / "out"
    reinforce(data, out, config=config)
    if not finished:
        (out / "index.json").unlink()
    before = times(out)
    vit = specs(teachers)[1]
    for other in (
        replace(config, seed=1),
        replace(config, num_views=3),
        replace(config, codec="fp32"),
        replace(config, batch_size=9),
        replace(config, augment=replace(config.augment, magnitude=3)),
        replace(config, teachers=(vit,)),
        replace(config, teachers=(config.teachers[0], replace(vit, logit_scale=50.0))),
        replace(config, teachers=(config.teachers[0], replace(config.teachers[0], name="vit"))),
    ):
        with pytest.raises(ValueError, match=r"another configuration.*: choose another folder"):
            reinforce(data, out, config=other)
    assert times(out) == before


@pytest.mark.parametrize("finished", [True, False])
def test_other_data_is_refused(data, config, tmp_path, pack_shapes, finished):
    reinforce(data, tmp_path / "out", config=config)
    if not finished:
        (tmp_path / "out" / "index.json").unlink()
    other = pack_shapes(tmp_path / "other", per_shard=7, train=18)
    with pytest.raises(ValueError, match=r"(from other data|or input).*choose another folder"):
        reinforce(other, tmp_path / "out", config=config)


def test_plain_shards_under_the_names_are_refused(data, config, tmp_path):
    shutil.copytree(data / "train", tmp_path / "out" / "train")
    with pytest.raises(ValueError, match=r"000000\.tar was made with another configuration or input"):
        reinforce(data, tmp_path / "out", config=config)


def test_a_shard_of_nothing_but_damage_is_left_out_and_its_samples_listed(config, tmp_path):
    good, bad = shape_samples(3, prefix="good"), shape_samples(2, prefix="bad")
    bad = [replace(sample, image=sample.image[:40]) for sample in bad]
    data = tmp_path / "data"
    entries = tuple(
        write_shard(data / "train" / f"{number:06d}.tar", samples)
        for number, samples in enumerate([good[:2], bad, good[2:]])
    )
    write_index(data, ShardIndex(source="shapes", splits={"train": entries}))
    index = reinforce(data, tmp_path / "out", config=config)
    assert [entry.file for entry in index.splits["train"]] == ["train/000000.tar", "train/000002.tar"]
    assert [drop.source for drop in index.dropped] == [f"train/000001.tar: bad000{i}" for i in range(2)]
    (tmp_path / "out" / "index.json").unlink()
    assert reinforce(data, tmp_path / "out", config=config) == index


def test_a_split_of_nothing_but_damage_is_an_error(config, tmp_path):
    bad = [replace(sample, image=b"no picture") for sample in shape_samples(2)]
    entry = write_shard(tmp_path / "data" / "train" / "000000.tar", bad)
    write_index(tmp_path / "data", ShardIndex(source="shapes", splits={"train": (entry,)}))
    with pytest.raises(
        ValueError, match="no sample of split 'train' can be reinforced; .*sample0001.*not a picture"
    ):
        reinforce(tmp_path / "data", tmp_path / "out", config=config)
    assert not (tmp_path / "out" / "index.json").exists()


def test_teachers_bring_their_own_scale_unless_another_is_given(data, config, teachers, tmp_path):
    learned = build_teacher(specs(teachers)[0]).record
    assert learned.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    given = replace(config.teachers[0], logit_scale=55.0)
    index = reinforce(data, tmp_path / "out", config=replace(config, teachers=(given,)))
    assert index.config["teachers"][0]["logit_scale"] == 55.0
    assert index.config["teachers"][0]["digest"] == learned.digest


# What cannot be done


def test_missing_teachers_are_told(data, config, tmp_path):
    gone = TeacherSpec(name="gone", source=str(tmp_path / "gone.safetensors"))
    with pytest.raises(
        FileNotFoundError, match=r"teacher gone: .*gone\.safetensors does not exist: give a checkpoint FILE"
    ):
        reinforce(data, tmp_path / "out", config=replace(config, teachers=(gone,)))
    # A variant's name would be a teacher with random weights.
    named = TeacherSpec(name="named", source="pocketclip_tiny")
    with pytest.raises(FileNotFoundError, match="teacher named: pocketclip_tiny does not exist"):
        reinforce(data, tmp_path / "out", config=replace(config, teachers=(named,)))
    assert not (tmp_path / "out").exists()


def test_missing_data_and_splits_are_told(data, config, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a packed folder"):
        reinforce(tmp_path, tmp_path / "out", config=config)
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation"):
        reinforce(data, tmp_path / "out", config=replace(config, splits=("test",)))


def test_a_device_that_is_not_there_is_told(data, config, tmp_path):
    with pytest.raises(ValueError, match="cannot run on device 'tpu9'"):
        reinforce(data, tmp_path / "out", config=replace(config, device="tpu9"))


def test_a_cut_shard_stops_the_run_with_its_name(data, config, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    path = copy / "train" / "000001.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ValueError, match=r"000001\.tar has .* bytes and the index says"):
        reinforce(copy, tmp_path / "out", config=config)


def test_an_unwritable_folder_is_told(data, config, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError, match=r"cannot write .*000000\.tar.*choose another output"):
        reinforce(data, tmp_path / "file" / "out", config=config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teachers": ()}, "one or more teachers"),
        ({"num_views": 0}, "num_views"),
        ({"batch_size": 0}, "batch_size"),
        ({"splits": ()}, "one or more different splits"),
        ({"splits": ("train", "train")}, "one or more different splits"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    teacher = TeacherSpec(name="t", source="t.safetensors")
    with pytest.raises(ValueError, match=message):
        ReinforceConfig(**{"teachers": (teacher,), **fields})


@pytest.mark.parametrize(
    "fields", [{"name": "a/b"}, {"name": ""}, {"logit_scale": 0.0}, {"logit_scale": float("nan")}]
)
def test_teachers_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match="teacher"):
        TeacherSpec(**{"name": "t", "source": "t.safetensors", **fields})


def test_two_teachers_of_one_name_are_refused():
    teacher = TeacherSpec(name="t", source="t.safetensors")
    with pytest.raises(ValueError, match="of different names"):
        ReinforceConfig(teachers=(teacher, teacher))
