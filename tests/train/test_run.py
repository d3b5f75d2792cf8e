"""A run is a folder: killed and run again it ends in the same checkpoint, finished it is left alone, and it learns."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import shape_samples

from pocketclip.checkpoint import create, load, load_state, unstructure, variant_config
from pocketclip.data.augment import AugmentSpec
from pocketclip.data.index import ShardIndex, write_index
from pocketclip.data.picture import decode
from pocketclip.data.publish import PublishError
from pocketclip.data.shard import write_shard
from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig, read_journal, saved_states
from pocketclip.recipes.registry import recipe
from pocketclip.reinforce import ReinforceConfig, reinforce
from pocketclip.teachers import TeacherSpec
from pocketclip.train import ObjectiveConfig, TrainConfig, train

torch.set_num_threads(1)
RATES = ("samples_per_s", "data_wait_share", "memory_gb")


def config(*, stream=None, objective=None, loop=None, optim=None, **fields):
    return TrainConfig(
        **{"name": "test", "variant": "pocketclip_tiny", **fields},
        stream=StreamConfig(**{"batch_size": 10, "num_threads": 2, **(stream or {})}),
        objective=ObjectiveConfig(**(objective or {})),
        optim=OptimConfig(**{"lr_peak": 2e-3, "warmup_steps": 2, **(optim or {})}),
        loop=LoopConfig(**{"num_steps": 7, "log_every": 1, "save_every": 2, **(loop or {})}),
    )


def reinforced_config(*, stream=None, **more):
    return config(
        stream={"replay": True, "synthetic": "rule", **(stream or {})},
        objective={"distill_weight": 0.7, "synthetic_weight": 1.0},
        **more,
    )


def records(out):
    return [
        {name: value for name, value in record.items() if name not in RATES}
        for record in read_journal(out / "metrics.jsonl")
    ]


def latest_state(out):
    return saved_states(out / "states")[0]


def snapshot(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def score(_model):
    return {"score": 0.0}


SMALL = {"batch_size": 3}  # of twelve samples: the fifth step begins another epoch

# What the n-th flush of a process is: the file and then the folder of config.json if the run begins, then of each
# state (after steps 2, 4 and 6 of 7), then of the checkpoint. What each kill leaves stands beside it.
MOMENTS = {
    "plain": [
        ["flush", 1],  # nothing
        ["step", 1],  # the configuration
        ["flush", 1],  # state 2 written, not named
        ["flush", 2],  # state 2
        ["step", 1],  # the same
        ["step", 3],  # state 4, when step 5 has begun another epoch
        ["flush", 1],  # state 4, state 6 written but not named
        ["flush", 3],  # state 6, the checkpoint written but not named
        ["flush", 2],  # the checkpoint, and the state that it makes useless
    ],
    "reinforced": [["step", 3], ["step", 1], ["flush", 4]],
}


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_checkpoint(teachers, pack_shapes, tmp_path):
    data = pack_shapes(tmp_path / "data", train=12)
    specs = tuple(TeacherSpec(name=name, source=str(path)) for name, path in teachers.items())
    reinforce(data, tmp_path / "reinforced", config=ReinforceConfig(teachers=specs, num_views=2))
    runs = {
        "plain": (data, config(stream=SMALL, loop={"evaluate_every": 1, "average_decay": 0.8})),
        "reinforced": (tmp_path / "reinforced", reinforced_config(stream=SMALL, loop={"evaluate_every": 1})),
    }
    jobs = [
        {
            "config": unstructure(run),
            "data": str(data),
            "out": str(tmp_path / "killed" / kind),
            "moments": MOMENTS[kind],
        }
        for kind, (data, run) in runs.items()
    ]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("interrupted.py"), json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[-signal.SIGKILL] * len(MOMENTS[kind]) + [0] for kind in runs], (
        done.stderr
    )
    for kind, (data, run) in runs.items():
        killed, whole = tmp_path / "killed" / kind, tmp_path / "whole" / kind
        expected = train(run, data=data, out=whole, evaluate=score)
        assert (killed / expected.name).read_bytes() == expected.read_bytes()
        assert records(killed) == records(whole)
        left = {path.name for path in killed.iterdir()}
        assert left == {"checkpoint.safetensors", "config.json", "metrics.jsonl"}


# `python -m pocketclip`, killed when it flushes a file for the fifth time: config.json, its folder, the state after
# two steps, its folder, and then the state after four.
KILLED = """
import itertools, os, runpy, signal
flush, counts = os.fsync, itertools.count(1)
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL) if next(counts) == 5 else flush(number)
runpy.run_module("pocketclip", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_the_command_line_killed_on_its_way_is_gone_on_with(shapes, tmp_path):
    out = tmp_path / "killed"
    # fmt: off
    arguments = [
        "train", "emoji.debug_student_plain", "--data", shapes, "--out", out, "--track.no-tensorboard",
        "--loop.num-steps", "5", "--loop.save-every", "2", "--loop.average-decay", "0.9",
    ]
    # fmt: on
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load_state(latest_state(out))["step"] == 2
    run = recipe("emoji.debug_student_plain")
    run = replace(
        run,
        loop=replace(run.loop, num_steps=5, save_every=2, average_decay=0.9),
    )
    # The same run, as the recipe and the function know it, in another process.
    checkpoint = train(run, data=shapes, out=out)
    expected = train(run, data=shapes, out=tmp_path / "whole")
    assert checkpoint.read_bytes() == expected.read_bytes()


def test_the_same_run_anywhere_is_the_same_file_and_a_seed_another(shapes, tmp_path):
    run = config(loop={"num_steps": 2})
    one, two = (train(run, data=shapes, out=tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert load(train(replace(run, seed=1), data=shapes, out=tmp_path / "three")).digest != load(one).digest


def test_a_finished_run_is_left_alone_and_needs_no_shards(shapes, tmp_path, pack_shapes):
    data = pack_shapes(tmp_path / "data", train=12)
    run = config(loop={"num_steps": 2})
    checkpoint = train(run, data=data, out=tmp_path / "out")
    before = snapshot(tmp_path / "out")
    (data / "train" / "000000.tar").unlink()
    started = time.monotonic()
    assert train(run, data=data, out=tmp_path / "out") == checkpoint
    assert time.monotonic() - started < 0.5
    assert snapshot(tmp_path / "out") == before


def test_another_configuration_or_other_data_is_refused_and_nothing_touched(shapes, tmp_path, pack_shapes):
    out, run = tmp_path / "out", config(loop={"num_steps": 2})
    train(run, data=shapes, out=out)
    before = snapshot(out)
    for other in (replace(run, seed=1), replace(run, optim=replace(run.optim, lr_peak=1e-3))):
        with pytest.raises(
            ValueError, match=r"out holds a run of another configuration .*choose another folder"
        ):
            train(other, data=shapes, out=out)
    with pytest.raises(ValueError, match="or other data"):
        train(run, data=pack_shapes(tmp_path / "other", train=47), out=out)
    assert snapshot(out) == before


def test_an_interrupted_run_refuses_another_configuration_too(shapes, tmp_path):
    def interrupt(_model):
        raise KeyboardInterrupt

    run = config(loop={"evaluate_every": 3})
    with pytest.raises(KeyboardInterrupt):
        train(run, data=shapes, out=tmp_path, evaluate=interrupt)
    assert latest_state(tmp_path).is_file()
    with pytest.raises(ValueError, match="another configuration"):
        train(replace(run, seed=1), data=shapes, out=tmp_path)


def test_a_run_that_could_not_begin_has_no_claim_on_its_folder(shapes, tmp_path):
    too_large = config(stream={"batch_size": 100}, loop={"num_steps": 1})
    with pytest.raises(ValueError, match="48 samples are fewer than one batch of 100"):
        train(too_large, data=shapes, out=tmp_path)
    no_such_caption = config(stream={"synthetic": "gpt"}, loop={"num_steps": 1})
    with pytest.raises(ValueError, match="no synthetic caption of /gpt/"):
        train(no_such_caption, data=shapes, out=tmp_path)
    assert train(config(loop={"num_steps": 1}), data=shapes, out=tmp_path).is_file()


def test_reinforced_training_lowers_its_loss(reinforced, tmp_path):
    run = reinforced_config(loop={"num_steps": 30}, optim={"warmup_steps": 5})
    train(run, data=reinforced, out=tmp_path)
    losses = [record["loss"] for record in records(tmp_path)]
    assert statistics.mean(losses[-5:]) < 0.7 * statistics.mean(losses[:5])
    for term in ("clip/caption", "distill/caption", "clip/synthetic", "distill/synthetic"):
        values = [record[term] for record in records(tmp_path)]
        assert statistics.mean(values[-5:]) < statistics.mean(values[:5]), term


@pytest.mark.slow
def test_plain_training_learns_the_shapes(tmp_path, pack_shapes):
    run = config(
        stream={
            "batch_size": 8,
            "augment": AugmentSpec(scale=(0.8, 1.0), num_ops=0),
            "main_caption_only": True,
        },
        loop={"num_steps": 50},
        optim={"warmup_steps": 5},
    )
    trained = load(train(run, data=pack_shapes(tmp_path / "data", train=8), out=tmp_path / "out"))
    samples = shape_samples(8, prefix="train")
    image_BCHW = torch.stack(
        [trained.preprocess(decode(sample.image, name=sample.key)) for sample in samples]
    )
    with torch.inference_mode():
        image_BD, text_BD, _ = trained.model(image_BCHW, trained.tokenize([s.captions[0] for s in samples]))
    right = (image_BD @ text_BD.T).argmax(dim=1) == torch.arange(8)
    assert right.sum() >= 6  # chance is one


def test_the_checkpoint_says_how_it_was_made(shapes, tmp_path):
    run = config(loop={"num_steps": 1})
    loaded = load(train(run, data=shapes, out=tmp_path))
    assert loaded.config.run["config"] == json.loads(json.dumps(unstructure(run)))
    assert len(loaded.config.run["data_sha256"]) == 64
    assert loaded.config.run["dropped"] == []
    assert str(tmp_path) not in json.dumps(loaded.config.run)
    start = variant_config("pocketclip_tiny")
    assert replace(loaded.config, run={}) == start
    assert json.loads((tmp_path / "config.json").read_text())["config"]["name"] == "test"


def test_the_average_is_what_is_kept(shapes, tmp_path):
    run = config(loop={"num_steps": 3, "average_decay": 0.9})
    averaged = load(train(run, data=shapes, out=tmp_path / "a")).model.state_dict()
    last = replace(run, loop=replace(run.loop, average_decay=None))
    weights = load(train(last, data=shapes, out=tmp_path / "b")).model.state_dict()
    torch.manual_seed(0)
    start = create("pocketclip_tiny").model.state_dict()
    name = "text.head.weight"
    assert (averaged[name] - start[name]).norm() < 0.5 * (weights[name] - start[name]).norm()


def pack_damaged(folder):
    samples = [
        replace(sample, image=sample.image[:50]) if i in (3, 9) else sample
        for i, sample in enumerate(shape_samples(12))
    ]
    entries = (write_shard(folder / "train" / "000000.tar", samples),)
    write_index(folder, ShardIndex(source="damaged", splits={"train": entries}))
    return folder


def test_damaged_pictures_are_named_in_the_checkpoint_after_an_interruption_too(tmp_path):
    data = pack_damaged(tmp_path / "data")
    run = config(stream={"batch_size": 6}, loop={"num_steps": 4, "save_every": 2, "evaluate_every": 3})

    def interrupt(_model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, data=data, out=tmp_path / "out", evaluate=interrupt)
    checkpoint = train(run, data=data, out=tmp_path / "out")
    dropped = load(checkpoint).config.run["dropped"]
    sources = {"train/000000.tar: sample0003", "train/000000.tar: sample0009"}
    assert {one["source"] for one in dropped} == sources
    assert all("damaged" in one["reason"] for one in dropped)
    whole = train(run, data=data, out=tmp_path / "whole")
    assert whole.read_bytes() == checkpoint.read_bytes()


def test_the_model_learns_what_the_evaluator_is_shown(shapes, tmp_path):
    shown = []

    def evaluate(model):
        assert not model.training
        shown.append(model.logit_scale.item())
        return {"mean_recall@1": 0.25}

    train(config(loop={"num_steps": 4, "evaluate_every": 2}), data=shapes, out=tmp_path, evaluate=evaluate)
    assert len(set(shown)) == 2
    evaluated = [record["step"] for record in records(tmp_path) if "mean_recall@1" in record]
    assert evaluated == [2, 4]


# Runs that do not fit together


def test_settings_that_need_each_other_are_told():
    with pytest.raises(ValueError, match=r"objective\.distill_weight needs .* set stream\.replay"):
        config(objective={"distill_weight": 0.5})
    with pytest.raises(ValueError, match=r"objective\.synthetic_weight needs .* set stream\.synthetic"):
        config(objective={"synthetic_weight": 0.5})


def test_captions_are_mixed_or_both_read_but_not_at_once(shapes, tmp_path):
    with pytest.raises(ValueError, match=r"stream\.synthetic_share .* objective\.synthetic_weight must be 0"):
        config(stream={"synthetic": "rule", "synthetic_share": 0.5}, objective={"synthetic_weight": 1.0})
    run = config(stream={"synthetic": "rule", "synthetic_share": 0.5}, loop={"num_steps": 2})
    assert train(run, data=shapes, out=tmp_path).is_file()
    assert "clip/caption" in records(tmp_path)[0]
    assert "clip/synthetic" not in records(tmp_path)[0]


def test_pictures_and_texts_of_another_size_make_the_model_one_for_them(shapes, tmp_path):
    run = config(
        variant="pocketclip_tiny_vit", stream={"image_px": 32}, loop={"num_steps": 1}, context_length=30
    )
    trained = load(train(run, data=shapes, out=tmp_path))
    assert trained.config.preprocess.size == trained.config.model.image.image_px == 32
    assert trained.config.tokenizer.context_length == trained.config.model.text.context_length == 30
    with pytest.raises(ValueError, match="not a multiple of"):
        train(replace(run, stream=replace(run.stream, image_px=33)), data=shapes, out=tmp_path / "odd")


def test_a_batch_of_all_processes_is_taken_in_parts_that_fit(shapes, tmp_path):
    run = config(global_batch=12, stream={"batch_size": 5}, loop={"num_steps": 2})
    parts = config(stream={"batch_size": 12}, loop={"num_steps": 2, "parts": 3})
    one, other = (train(c, data=shapes, out=tmp_path / n) for n, c in (("a", run), ("b", parts)))
    weights = load(other).model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in load(one).model.state_dict().items())
    assert load(one).config.run["config"]["global_batch"] == 12


def test_recomputed_activations_change_no_weight(shapes, tmp_path):
    run = config(loop={"num_steps": 2})
    one = train(run, data=shapes, out=tmp_path / "kept")
    other = train(replace(run, gradient_checkpointing=True), data=shapes, out=tmp_path / "recomputed")
    weights = load(other).model.state_dict()
    for name, value in load(one).model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5)


def test_plain_shards_for_a_reinforced_recipe_are_told(shapes, tmp_path):
    with pytest.raises(ValueError, match=r"is not reinforced: run `pocketclip reinforce` first"):
        train(reinforced_config(), data=shapes, out=tmp_path)


def test_unknown_variants_splits_and_folders_are_told(shapes, tmp_path):
    with pytest.raises(ValueError, match="Unknown variant 'tiny'"):
        train(config(variant="tiny"), data=shapes, out=tmp_path / "a")
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation"):
        train(config(split="test"), data=shapes, out=tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="is not a packed folder"):
        train(config(), data=tmp_path / "nothing", out=tmp_path / "c")


def test_a_damaged_state_is_told_and_the_one_before_is_gone_on_from(shapes, tmp_path, capsys):
    run = config(loop={"keep_states": 2, "evaluate_every": 5})
    expected = train(run, data=shapes, out=tmp_path / "whole", evaluate=score).read_bytes()

    def interrupt(_model):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(run, data=shapes, out=out, evaluate=interrupt)
    newest, older = saved_states(out / "states")
    assert (newest.name, older.name) == ("step-00000004.safetensors", "step-00000002.safetensors")
    newest.write_bytes(newest.read_bytes()[:-100])
    assert train(run, data=shapes, out=out, evaluate=score).read_bytes() == expected
    assert f"{newest} cannot be used, the one before is tried" in capsys.readouterr().err


def test_damaged_states_alone_are_told_and_deleting_them_starts_anew(shapes, tmp_path):
    run = config(loop={"num_steps": 2})
    expected = train(run, data=shapes, out=tmp_path / "whole").read_bytes()
    out = tmp_path / "out"
    (out / "states").mkdir(parents=True)
    (out / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    torn = out / "states" / "step-00000001.safetensors"
    torn.write_bytes(b"torn")
    with pytest.raises(
        ValueError, match=r"step-00000001\.safetensors is not a whole training state .*delete it"
    ):
        train(run, data=shapes, out=out)
    torn.unlink()
    assert train(run, data=shapes, out=out).read_bytes() == expected


def test_an_unwritable_folder_is_told(shapes, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError, match=r"cannot write .*config\.json.*choose another output"):
        train(config(), data=shapes, out=tmp_path / "file" / "run")
    with pytest.raises(PublishError, match=r"cannot write .*config\.json"):
        train(config(), data=shapes, out=tmp_path / "file")


def test_a_disk_that_fills_up_stops_the_run_with_its_last_state(shapes, tmp_path):
    run = config()

    calls = []

    def fill(_model):
        calls.append(1)
        if len(calls) > 1:
            return {}
        (tmp_path / "states" / ".step-00000004.safetensors.partial").symlink_to("/dev/full")
        return {}

    filling = replace(run, loop=replace(run.loop, evaluate_every=3))
    with pytest.raises(
        PublishError, match=r"disk full while writing .*step-00000004\.safetensors.*free some space"
    ):
        train(filling, data=shapes, out=tmp_path, evaluate=fill)
    assert latest_state(tmp_path).name == "step-00000002.safetensors"
    checkpoint = train(filling, data=shapes, out=tmp_path, evaluate=score)
    whole = train(filling, data=shapes, out=tmp_path / "whole", evaluate=score)
    assert checkpoint.read_bytes() == whole.read_bytes()
