"""A run begins where it is told to, and what is frozen stays as it was, running statistics included."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from pocketclip.checkpoint import load, save
from pocketclip.data.stream import StreamConfig
from pocketclip.fit import LoopConfig, OptimConfig
from pocketclip.train import TrainConfig, starting_model, train

torch.set_num_threads(1)


def config(start, **fields):
    return TrainConfig(
        **{"name": "test", "start": str(start), **fields},
        stream=StreamConfig(batch_size=8),
        optim=OptimConfig(lr_peak=1e-2, warmup_steps=1),
        loop=LoopConfig(num_steps=2),
    )


def changed(one, other):
    """First words of the names of the tensors that differ."""
    before, after = one.model.state_dict(), other.model.state_dict()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_it_begins_with_the_checkpoint_bit_for_bit(tiny_checkpoint):
    start, own = starting_model(config(tiny_checkpoint)), load(tiny_checkpoint)
    assert not changed(own, start)
    assert start.digest == own.digest
    assert start.config == own.config


def test_a_runs_folder_is_a_start_too(tiny_checkpoint):
    assert starting_model(config(tiny_checkpoint.parent)).digest == load(tiny_checkpoint).digest


@pytest.mark.parametrize(
    ("freeze", "moves"),
    [
        ("nothing", {"image", "text", "logit_scale"}),
        ("image", {"text", "logit_scale"}),
        ("text", {"image", "logit_scale"}),
    ],
)
def test_frozen_towers_stay_as_they_were(freeze, moves, tiny_checkpoint, shapes, tmp_path):
    trained = load(train(config(tiny_checkpoint, freeze=freeze), data=shapes, out=tmp_path))
    assert {name.partition(".")[0] for name in changed(load(tiny_checkpoint), trained)} == moves


def test_all_but_the_heads_may_stay(tiny_checkpoint, shapes, tmp_path):
    trained = load(train(config(tiny_checkpoint, freeze="all-but-heads"), data=shapes, out=tmp_path))
    heads = {"image.head.weight", "image.head.bias", "text.head.weight", "logit_scale"}
    assert changed(load(tiny_checkpoint), trained) == heads


def test_the_checkpoint_says_what_it_began_with_wherever_that_was(tiny_checkpoint, shapes, tmp_path):
    trained = load(train(config(tiny_checkpoint), data=shapes, out=tmp_path / "run"))
    assert trained.config.run["start_digest"] == load(tiny_checkpoint).digest
    assert trained.config.run["config"]["start"] == tiny_checkpoint.name
    assert str(tiny_checkpoint.parent) not in json.dumps(trained.config.run)
    moved = tmp_path / "elsewhere" / tiny_checkpoint.name
    moved.parent.mkdir()
    shutil.copy(tiny_checkpoint, moved)
    assert train(config(moved), data=shapes, out=tmp_path / "run").is_file()


def test_another_checkpoint_of_that_name_is_another_run(tiny_checkpoint, shapes, tmp_path):
    train(config(tiny_checkpoint), data=shapes, out=tmp_path / "run")
    loaded = load(tiny_checkpoint)
    with torch.no_grad():
        loaded.model.logit_scale += 0.1
    other = tmp_path / tiny_checkpoint.name
    save(other, loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
    with pytest.raises(ValueError, match="another configuration"):
        train(config(other), data=shapes, out=tmp_path / "run")


def test_what_cannot_be_begun_with_is_told(tiny_checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="start .*none does not exist: give a checkpoint"):
        starting_model(config(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="start pocketclip_tiny does not exist"):
        starting_model(config("pocketclip_tiny"))
    with pytest.raises(ValueError, match="does not hold a pocketclip_tiny_vit"):
        starting_model(config(tiny_checkpoint, variant="pocketclip_tiny_vit"))


def test_a_start_may_be_made_to_take_longer_texts(tiny_checkpoint):
    run = replace(config(tiny_checkpoint), context_length=40)
    start = starting_model(run)
    assert start.tokenizer.config.context_length == 40
    assert start.tokenize(["a dog"]).shape == (1, 40)
    assert len(changed(load(tiny_checkpoint), start)) == 1  # the positions


def test_pictures_of_many_sizes_need_a_tower_that_takes_them(tiny_checkpoint, shapes, tmp_path):
    run = config(tiny_checkpoint)
    run = replace(run, stream=replace(run.stream, sizes_px=(32, 64)))
    assert load(train(run, data=shapes, out=tmp_path)).config.preprocess.size == 48
    vit = replace(run, start=None, variant="pocketclip_tiny_vit")
    with pytest.raises(ValueError, match=r"stream\.sizes_px has 36, .* patches of 8 pixels: take multiples"):
        starting_model(replace(vit, stream=replace(vit.stream, sizes_px=(36,))))
    # A ViT's positions are interpolated for each batch; the checkpoint has those of its own size.
    trained = load(train(vit, data=shapes, out=tmp_path / "vit"))
    assert trained.config.model.image.image_px == trained.config.preprocess.size == 48
    assert changed(starting_model(vit), trained) >= {"image.position", "image.head.weight"}
