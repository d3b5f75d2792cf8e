"""A reinforced folder: killed and run again it is the same to the byte; finished, it is left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import shape_samples
from tests.teachers.plain_teachers import PlainTeacher

from pocketclip.data.index import ShardIndex, read_index, split_shards, write_index
from pocketclip.data.objects import Place
from pocketclip.data.publish import PublishError, sha256_file
from pocketclip.data.reinforcement import BLOCK_NAME, Reinforcement
from pocketclip.data.shard import ShardReader, write_shard
from pocketclip.engine import worker as engine_worker
from pocketclip.reinforce import EngineConfig, FailedShardsError, ReinforceConfig, reinforce, worker
from pocketclip.reinforce.run import without_place
from pocketclip.teachers import CaptionerSpec, TeacherSpec, build_teacher

torch.set_num_threads(1)


@pytest.fixture
def config(plain_config):
    return plain_config


def write_folder(folder, splits, *, per_shard=7, **fields):
    """Packs lists of samples by split."""
    entries = {
        split: tuple(
            write_shard(folder / split / f"{number:06d}.tar", samples[start : start + per_shard])
            for number, start in enumerate(range(0, len(samples), per_shard))
        )
        for split, samples in splits.items()
    }
    write_index(folder, ShardIndex(source="shapes", splits=entries, **fields))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three shards of training samples and one of validation samples, some pictures damaged."""
    splits = {
        split: [
            replace(sample, image=sample.image[:50]) if i % 8 == 3 else sample
            for i, sample in enumerate(shape_samples(num, prefix=split))
        ]
        for split, num in (("train", 18), ("validation", 5))
    }
    folder = tmp_path_factory.mktemp("damaged")
    return write_folder(folder, splits, licences={"CC0": 23}, attribution=("Shapes by us.",))


def contents(folder):
    """All files, without the manifest's times."""
    return {
        str(path.relative_to(folder)): timeless(path) if path.suffix == ".jsonl" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def timeless(path):
    changing = ("seconds", "cost", "engine")
    return [{name: row[name] for name in row if name not in changing} for row in rows(path)]


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def times(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def interrupt(monkeypatch, after):
    """Lets the shard after so many be interrupted; gathers the names of those before."""
    done = []
    real = worker.reinforce_shard

    def stop(*arguments, **options):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(options["name"])
        return real(*arguments, **options)

    monkeypatch.setattr(worker, "reinforce_shard", stop)
    return done


def begun(data, out, *, config, monkeypatch, after):
    """A folder whose run was interrupted after so many shards; their names."""
    with monkeypatch.context() as patch:
        done = interrupt(patch, after)
        with pytest.raises(KeyboardInterrupt):
            reinforce(data, out, config=config)
    assert len(done) == after
    return done


def test_a_folder_has_a_shard_of_the_same_name_for_each_and_an_index(data, config, tmp_path):
    index = reinforce(data, tmp_path / "out", config=config)
    assert read_index(tmp_path / "out") == index
    assert contents(tmp_path / "out").keys() == {
        "index.json",
        "manifest.jsonl",
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


def test_the_manifest_says_what_became_of_every_shard(data, config, tmp_path):
    both = replace(config, splits=("train", "validation"))
    index = reinforce(data, tmp_path / "out", config=both)
    manifest = rows(tmp_path / "out" / "manifest.jsonl")
    assert [row["shard"] for row in manifest] == [
        *(f"train/00000{i}.tar" for i in range(3)),
        "validation/000000.tar",
    ]
    entries = [entry for split in index.splits.values() for entry in split]
    for row, entry in zip(manifest, entries, strict=True):
        assert (row["sha256"], row["num_bytes"], row["num_samples"]) == (
            entry.sha256,
            entry.num_bytes,
            entry.num_samples,
        )
        assert row["input_sha256"] == sha256_file(data / row["input"])
        assert row["config_digest"] == index.config["digest"]
        assert row["teachers"] == {"even": "even", "odd": "odd"}
        assert (row["engine"], row["device"], row["earlier_failures"]) == ("in-process", "cpu", [])
        assert row["num_texts"] == 3 * row["num_samples"]
        assert 0 < sum(row["cost"].values()) <= row["seconds"] + 0.01
        assert {"load", "image/even", "text/odd", "write"} <= row["cost"].keys()
    assert (
        sum(len(row["dropped"]) for row in manifest) == len(index.dropped) == index.config["num_dropped"] == 3
    )
    for table, error in index.config["errors"].items():
        in_shards = [row["errors"][table]["cosine_min"] for row in manifest]
        assert error["cosine_min"] == min(in_shards)
        means = [row["errors"][table]["cosine_mean"] for row in manifest]
        assert min(means) <= error["cosine_mean"] <= max(means)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("runs/a/checkpoint.safetensors", "checkpoint.safetensors"),
        ("/runs/a", "a"),
        ("open_clip:ViT-L-14/openai", "open_clip:ViT-L-14/openai"),
        ("open_clip:ViT-B-32//models/mine.safetensors", "open_clip:ViT-B-32//mine.safetensors"),
        ("open_clip:/models/folder", "open_clip:folder"),
        ("transformers:google/siglip2-base-patch16-224", "transformers:google/siglip2-base-patch16-224"),
        ("transformers:./models/folder", "transformers:folder"),
        ("hf-hub:apple/DFN2B-CLIP-ViT-L-14@main", "hf-hub:apple/DFN2B-CLIP-ViT-L-14@main"),
    ],
)
def test_the_index_names_no_folder_of_the_machine(source, told):
    assert without_place(source) == told


def test_teachers_elsewhere_give_the_same_index(data, tmp_path, tiny_checkpoint):
    """The same weights under another path are the same teacher, and everything but the times is the same."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        shutil.copy(tiny_checkpoint, tmp_path / name / "checkpoint.safetensors")
        teacher = TeacherSpec(name="t", source=str(tmp_path / name / "checkpoint.safetensors"))
        one = ReinforceConfig(teachers=(teacher,), num_views=1, num_threads=1)
        reinforce(data, tmp_path / name / "out", config=one)
    assert contents(tmp_path / "here" / "out") == contents(tmp_path / "there" / "out")


def test_the_index_lists_so_many_drops_and_the_manifest_all(config, tmp_path, monkeypatch):
    from pocketclip.engine import ledger

    monkeypatch.setattr(ledger, "LISTED", 5)
    samples = [replace(sample, image=b"x") if i % 2 else sample for i, sample in enumerate(shape_samples(30))]
    index = reinforce(write_folder(tmp_path / "data", {"train": samples}), tmp_path / "out", config=config)
    assert (len(index.dropped), index.config["num_dropped"]) == (5, 15)
    manifest = rows(tmp_path / "out" / "manifest.jsonl")
    assert [drop["source"] for row in manifest for drop in row["dropped"]] == [
        sample.key for sample in samples[1::2]
    ]


def killed(data, out, *, moments, config):
    """Reinforces both splits, killed at each of the moments and started again; how the processes ended."""
    script = Path(__file__).with_name("interrupted.py")
    named = [f"{spec.name}={spec.source}" for spec in config.teachers]
    done = subprocess.run(
        [sys.executable, script, data, out, json.dumps(moments), *named],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_in_the_same_bytes(config, tmp_path):
    splits = {"train": shape_samples(56), "validation": shape_samples(7, prefix="validation")}
    splits["train"][20] = replace(splits["train"][20], image=b"damage")
    data = write_folder(tmp_path / "data", splits, per_shard=4)
    reinforce(data, tmp_path / "whole", config=replace(config, splits=("train", "validation")))
    rng = random.Random(7)
    # Four batches and four flushes a shard: each kill leaves a shard or so more.
    moments = [[kind, rng.randint(1, 6)] for kind in rng.choices(["batch", "flush"], k=10)]
    ends = killed(data, tmp_path / "killed", moments=moments, config=config)
    assert ends == [-signal.SIGKILL] * 10 + [0]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_killed_as_it_becomes_whole_it_ends_in_the_same_bytes(config, tmp_path):
    splits = {"train": shape_samples(4), "validation": shape_samples(4, prefix="validation")}
    data = write_folder(tmp_path / "data", splits)
    reinforce(data, tmp_path / "whole", config=replace(config, splits=tuple(splits)))
    # Flushed are the run's file and folder, shard, folder, marker, folder, twice; then manifest, folder, index, folder.
    moments = [["flush", 11], ["flush", 1], ["flush", 2], ["flush", 3], ["flush", 4]]
    ends = killed(data, tmp_path / "killed", moments=moments, config=config)
    assert ends == [-signal.SIGKILL] * 5 + [0]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_finished_folder_is_left_alone(data, config, tmp_path, monkeypatch):
    index = reinforce(data, tmp_path / "out", config=config)
    before = times(tmp_path)
    monkeypatch.setattr(PlainTeacher, "encode_image", None)
    assert reinforce(data, tmp_path / "out", config=config) == index
    assert times(tmp_path) == before


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interruption_keeps_finished_shards_and_nothing_half_made(
    data, config, tmp_path, monkeypatch, after
):
    whole = reinforce(data, tmp_path / "whole", config=config)
    out = tmp_path / "out"
    done = begun(data, out, config=config, monkeypatch=monkeypatch, after=after)
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar*") if path.is_file()}
    names = {path.relative_to(out).as_posix() for path in kept}
    assert names == {*done, *(f".done/{name}.json" for name in done)}
    made = interrupt(monkeypatch, 99)
    assert reinforce(data, out, config=config) == whole
    assert sorted([*done, *made]) == [f"train/00000{i}.tar" for i in range(3)]
    for path, at in kept.items():
        assert ".done" in path.parts or path.stat().st_mtime_ns == at
    assert contents(out) == contents(tmp_path / "whole")


def test_a_marker_is_trusted_only_where_sizes_agree(data, config, tmp_path, monkeypatch):
    reinforce(data, tmp_path / "whole", config=config)
    out = tmp_path / "out"
    begun(data, out, config=config, monkeypatch=monkeypatch, after=2)
    (out / "train" / "000000.tar").unlink()
    marker = out / ".done" / "train" / "000001.tar.json"
    marker.write_bytes(marker.read_bytes()[:-20])
    made = interrupt(monkeypatch, 99)
    reinforce(data, out, config=config)
    assert len(made) == 3
    assert contents(out) == contents(tmp_path / "whole")


def test_a_shard_without_a_marker_is_made_again_and_must_be_equal(data, config, tmp_path, monkeypatch):
    whole = reinforce(data, tmp_path / "whole", config=config)
    out = tmp_path / "out"
    begun(data, out, config=config, monkeypatch=monkeypatch, after=1)
    shutil.copy(tmp_path / "whole" / "train" / "000002.tar", out / "train")
    foreign = out / "train" / "000001.tar"
    shutil.copy(data / "train" / "000001.tar", foreign)
    with pytest.raises(FailedShardsError, match=r"000001\.tar \(.* holds other bytes, made with another"):
        reinforce(data, out, config=config)
    assert foreign.read_bytes() == (data / "train" / "000001.tar").read_bytes()
    foreign.unlink()
    assert reinforce(data, out, config=config) == whole


def begin(data, out, *, config, finished, monkeypatch):
    """A finished folder, or one of which two shards are there."""
    if finished:
        reinforce(data, out, config=config)
        return
    begun(data, out, config=config, monkeypatch=monkeypatch, after=2)


@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused_and_nothing_touched(data, config, tmp_path, finished, monkeypatch):
    out = tmp_path / "out"
    begin(data, out, config=config, finished=finished, monkeypatch=monkeypatch)
    before = times(out)
    odd = config.teachers[1]
    for other in (
        replace(config, seed=1),
        replace(config, num_views=3),
        replace(config, codec="fp32"),
        replace(config, batch_size=9),
        replace(config, augment=replace(config.augment, magnitude=3)),
        replace(config, num_threads=2),
        replace(config, precision="bf16"),
        replace(config, teachers=(odd,)),
        replace(config, teachers=(config.teachers[0], replace(odd, logit_scale=50.0))),
        replace(config, teachers=(config.teachers[0], replace(config.teachers[0], name="seven"))),
    ):
        with pytest.raises(ValueError, match=r"with another configuration.*: choose another folder"):
            reinforce(data, out, config=other)
    assert times(out) == before


@pytest.mark.parametrize("finished", [True, False])
def test_other_data_is_refused(data, config, tmp_path, pack_shapes, finished, monkeypatch):
    begin(data, tmp_path / "out", config=config, finished=finished, monkeypatch=monkeypatch)
    other = pack_shapes(tmp_path / "other", per_shard=7, train=18)
    with pytest.raises(ValueError, match=r"from other data: choose another folder"):
        reinforce(other, tmp_path / "out", config=config)


def test_a_folder_with_other_files_is_refused(data, config, tmp_path):
    shutil.copytree(data / "train", tmp_path / "out" / "train")
    before = times(tmp_path / "out")
    with pytest.raises(ValueError, match=r"out holds other files \(train/000000\.tar\): choose an empty"):
        reinforce(data, tmp_path / "out", config=config)
    assert times(tmp_path / "out") == before


def test_threads_are_those_of_the_run_that_began(data, config, tmp_path, monkeypatch):
    """Another machine goes on with the number of threads that the first shards were made with."""
    free = replace(config, num_threads=None)
    begun(data, tmp_path / "out", config=free, monkeypatch=monkeypatch, after=2)
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    index = reinforce(data, tmp_path / "out", config=free)
    assert set(seen[:-1]) == {1}
    assert seen[-1] == 7  # as it was
    assert index.config["num_threads"] == 1
    assert reinforce(data, tmp_path / "out", config=free) == index
    seen.clear()
    assert reinforce(data, tmp_path / "other", config=free).config["num_threads"] == 7
    assert set(seen) == {7}


def test_a_shard_of_nothing_but_damage_is_left_out_and_its_samples_listed(config, tmp_path):
    good, bad = shape_samples(4, prefix="good"), shape_samples(2, prefix="bad")
    bad = [replace(sample, image=sample.image[:40]) for sample in bad]
    data = write_folder(tmp_path / "data", {"train": [*good[:2], *bad, *good[2:]]}, per_shard=2)
    index = reinforce(data, tmp_path / "out", config=config)
    assert [entry.file for entry in index.splits["train"]] == ["train/000000.tar", "train/000002.tar"]
    assert [drop.source for drop in index.dropped] == [f"train/000001.tar: bad000{i}" for i in range(2)]
    assert [row["num_samples"] for row in rows(tmp_path / "out" / "manifest.jsonl")] == [2, 0, 2]
    assert reinforce(data, tmp_path / "out", config=config) == index


def test_a_split_of_nothing_but_damage_is_an_error(config, tmp_path):
    bad = [replace(sample, image=b"no picture") for sample in shape_samples(2)]
    write_folder(tmp_path / "data", {"train": bad})
    with pytest.raises(
        ValueError, match="no sample of split 'train' can be reinforced; .*sample0001.*not a picture"
    ):
        reinforce(tmp_path / "data", tmp_path / "out", config=config)
    assert not (tmp_path / "out" / "index.json").exists()


def test_checkpoints_bring_their_own_scale_unless_another_is_given(data, teachers, tmp_path):
    config = ReinforceConfig(
        teachers=tuple(TeacherSpec(name=name, source=str(path)) for name, path in teachers.items()),
        num_views=2,
        batch_size=8,
    )
    learned = build_teacher(config.teachers[0]).record
    assert learned.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    given = replace(config.teachers[0], logit_scale=55.0)
    index = reinforce(data, tmp_path / "out", config=replace(config, teachers=(given,)))
    assert index.config["teachers"][0]["logit_scale"] == 55.0
    assert index.config["teachers"][0]["digest"] == learned.digest


# Shards that fail


def test_a_failed_shard_is_named_after_all_others_are_done_and_tried_again(data, config, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(data, copy)
    path = copy / "train" / "000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + b"?" + whole[5001:])
    with pytest.raises(
        FailedShardsError,
        match=r"^1 of 3 shards failed: train/000001\.tar \(.* is not what index\.json says .*\); all others are done,"
        r" failures\.jsonl lists the failed ones, and the same command tries them again$",
    ):
        reinforce(copy, out, config=config)
    assert not (out / "index.json").exists()
    (failure,) = rows(out / "failures.jsonl")
    assert (failure["shard"], len(failure["reasons"])) == ("train/000001.tar", 1)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("train/*")}
    assert len(kept) == 2
    path.write_bytes(whole)
    reinforce(copy, out, config=config)
    reinforce(data, tmp_path / "whole", config=config)
    assert contents(out) == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_what_may_pass_is_tried_again_and_the_reasons_are_kept(data, config, tmp_path, monkeypatch):
    tries = []
    real = engine_worker.open_unit

    def open_unit(unit, store):
        tries.append(unit.name)
        if unit.name == "train/000001.tar" and tries.count(unit.name) < 3:
            raise TimeoutError(f"no answer, {tries.count(unit.name)}")
        return real(unit, store)

    monkeypatch.setattr(engine_worker, "open_unit", open_unit)
    reinforce(data, tmp_path / "out", config=config)
    manifest = rows(tmp_path / "out" / "manifest.jsonl")
    assert [row["earlier_failures"] for row in manifest] == [[], ["no answer, 1", "no answer, 2"], []]
    assert tries == [f"train/00000{i}.tar" for i in (0, 1, 2, 1, 1)]
    tries.clear()
    with pytest.raises(FailedShardsError, match=r"000001\.tar \(no answer, 2\)"):
        reinforce(data, tmp_path / "other", config=config, engine=EngineConfig(attempts=2))


def test_a_disk_that_is_full_ends_the_run(data, config, tmp_path, monkeypatch):
    done = interrupt(monkeypatch, 99)
    monkeypatch.setattr(engine_worker.open_store(Place(url="x")).__class__, "put_once", full_disk)
    with pytest.raises(PublishError, match="disk full"):
        reinforce(data, tmp_path / "out", config=config)
    assert len(done) <= 1


def full_disk(store, name, data):
    raise PublishError("disk full")


def test_termination_is_an_interruption(data, config, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(worker, "reinforce_shard", stop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        reinforce(data, tmp_path / "out", config=config)
    assert signal.getsignal(signal.SIGTERM) is before
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"run.json"}


def test_it_runs_in_other_threads_too(data, config, tmp_path):
    thread = threading.Thread(target=lambda: reinforce(data, tmp_path / "out", config=config))
    thread.start()
    thread.join()
    assert read_index(tmp_path / "out").num_samples() == 16


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
    with pytest.raises(FileNotFoundError, match="nothing: no such file or folder"):
        reinforce(tmp_path / "nothing", tmp_path / "out", config=config)
    with pytest.raises(
        ValueError, match="is not a packed folder and holds no shards, tables or captioned pictures"
    ):
        reinforce(tmp_path, tmp_path / "out", config=config)
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation"):
        reinforce(data, tmp_path / "out", config=replace(config, splits=("test",)))


def test_a_device_that_is_not_there_is_told(data, config, teachers, tmp_path):
    config = replace(config, teachers=(TeacherSpec(name="conv", source=str(teachers["conv"])),))
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
    with pytest.raises(PublishError, match=r"cannot write .*out: .*choose another output"):
        reinforce(data, tmp_path / "file" / "out", config=config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teachers": ()}, "one or more teachers"),
        ({"num_views": 0}, "num_views"),
        ({"batch_size": 0}, "batch_size"),
        ({"splits": ()}, "one or more different splits"),
        ({"splits": ("train", "train")}, "one or more different splits"),
        ({"num_threads": 0}, "num_threads"),
        ({"shard_samples": 0}, "shard_samples"),
        ({"captioners": (CaptionerSpec(name="c", source="x"),) * 2}, "captioners of different names"),
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"num_loaders": 0}, "num_loaders must be at least 1"),
        ({"min_workers": 3, "max_workers": 2}, "max_workers must be at least min_workers"),
        ({"straggler": 0.5}, "straggler must be above 1, or 0"),
        ({"gpus_per_worker": 1.5}, "gpus_per_worker must be a share of one or a whole number"),
        ({"gpus_per_worker": 0}, "gpus_per_worker must be a share of one or a whole number"),
    ],
)
def test_engines_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EngineConfig(**fields)
