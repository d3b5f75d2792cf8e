"""Runs: killed and resumed they end with the same weights; reinforced shards are learned from."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from pocketclip.checkpoint import create, load, save
from pocketclip.data.augment import AugmentSpec
from pocketclip.fit import read_journal
from pocketclip.recipes import emoji
from pocketclip.reinforce import ReinforceConfig, TeacherSpec, reinforce
from pocketclip.train import ObjectiveConfig, train


def tensors(path):
    return safetensors.torch.load_file(path)


@pytest.fixture(scope="module")
def recipe():
    return emoji.debug(emoji.student_plain())


def test_a_run_leaves_a_checkpoint_that_says_how_it_was_made(tmp_path, shapes, recipe):
    path = train(recipe, data=shapes, out=tmp_path / "run")
    loaded = load(path)
    assert loaded.config.run["config"]["name"] == "emoji.debug_student_plain"
    assert loaded.config.run["config"]["stream"]["batch_size"] == 16
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "metrics.jsonl",
    ]
    assert [r["step"] for r in read_journal(path.parent / "metrics.jsonl") if "loss" in r] == list(
        range(1, 7)
    )
    before = path.stat().st_mtime_ns
    assert train(recipe, data=shapes, out=tmp_path / "run") == path
    assert path.stat().st_mtime_ns == before


def test_another_run_is_kept_out_of_the_folder(tmp_path, shapes, recipe):
    train(recipe, data=shapes, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds a run of another configuration.*choose another folder"):
        train(replace(recipe, seed=3), data=shapes, out=tmp_path / "run")


def test_recipe_and_shards_must_fit(tmp_path, shapes, recipe):
    with pytest.raises(ValueError, match="not reinforced"):
        train(replace(recipe, stream=replace(recipe.stream, replay=True)), data=shapes, out=tmp_path / "a")
    with pytest.raises(ValueError, match=r"image_px is 40 but pocketclip_tiny takes pictures of 48 px"):
        train(replace(recipe, stream=replace(recipe.stream, image_px=40)), data=shapes, out=tmp_path / "b")
    with pytest.raises(ValueError, match=r"has no split 'test'"):
        train(replace(recipe, split="test"), data=shapes, out=tmp_path / "c")


@pytest.mark.slow
def test_reinforced_training_lowers_its_loss(tmp_path, shapes, recipe):
    torch.manual_seed(0)
    teacher = create("pocketclip_tiny_vit")
    save(tmp_path / "t.safetensors", teacher.model, config=teacher.config, tokenizer=teacher.tokenizer)
    spec = TeacherSpec(name="vit", checkpoint=tmp_path / "t.safetensors", logit_scale=40.0)
    config = ReinforceConfig(teachers=(spec,), num_views=2, augment=AugmentSpec(scale=(0.5, 1.0)))
    reinforce(shapes, tmp_path / "reinforced", config=config)
    run = replace(
        recipe,
        name="test.reinforced",
        stream=replace(recipe.stream, replay=True, synthetic="rule"),
        objective=ObjectiveConfig(distill_weight=0.8, synthetic_weight=1.0),
        loop=replace(recipe.loop, num_steps=25, average_decay=0.9),
    )
    path = train(run, data=tmp_path / "reinforced", out=tmp_path / "run")
    losses = [r["loss"] for r in read_journal(path.parent / "metrics.jsonl") if "loss" in r]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.slow
def test_killed_at_random_steps_a_run_ends_with_the_same_weights(tmp_path, shapes):
    def command(out):
        settings = ["--loop.num-steps", "30", "--loop.average-decay", "0.9"]
        verb = [sys.executable, "-m", "pocketclip", "train", "emoji.debug_student_plain"]
        return [*verb, "--data", str(shapes), "--out", str(out), *settings]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    killed = tmp_path / "killed"
    for step in (4, 17):
        process = subprocess.Popen(
            command(killed), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        metrics = killed / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(killed), env=environment, check=True, capture_output=True)
    one, two = (
        tensors(tmp_path / "whole" / "checkpoint.safetensors"),
        tensors(killed / "checkpoint.safetensors"),
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [r["step"] for r in read_journal(killed / "metrics.jsonl") if "loss" in r]
    assert steps == list(range(1, 31))
