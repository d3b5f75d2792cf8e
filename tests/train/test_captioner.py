"""A captioner is trained by CoCa's loss, with everything that a run of a CLIP has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.train.test_ranks import curve, torchrun, weights
from tests.train.test_run import config, records

from pocketclip.checkpoint import create, load
from pocketclip.data.index import split_shards
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.stream import Stream, StreamConfig
from pocketclip.data.tokenize import Tokenizer
from pocketclip.losses import PairRows, clip_loss
from pocketclip.train import CaptionerObjective, ObjectiveConfig, train

torch.set_num_threads(1)
COCA = {"captioning_weight": 2.0}
PREPROCESS = Preprocess(size=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")


def captioner_config(*, objective=None, **more):
    return config(variant="pocketclip_tiny_captioner", objective={**COCA, **(objective or {})}, **more)


@pytest.fixture(scope="module")
def batch(shapes):
    model = create("pocketclip_tiny_captioner")
    stream = StreamConfig(batch_size=6, image_px=48, synthetic="rule")
    with Stream(split_shards(shapes, "train"), config=stream, tokenizer=model.tokenizer) as batches:
        return next(iter(batches))


def terms_of(model, batch, **weights):
    objective = CaptionerObjective(ObjectiveConfig(**weights), preprocess=PREPROCESS, device="cpu")
    return objective, objective.loss(objective.encode(model, batch), batch)


@pytest.mark.parametrize("kind", ["caption", "synthetic"])
def test_the_total_is_the_contrastive_loss_and_twice_the_captioning_loss(batch, kind):
    torch.manual_seed(0)
    model = create("pocketclip_tiny_captioner").model
    chosen = {"caption_weight": float(kind == "caption"), "synthetic_weight": float(kind == "synthetic")}
    objective, terms = terms_of(model, batch, **COCA, **chosen)
    tokens = torch.from_numpy(batch.tokens_BL if kind == "caption" else batch.synthetic_BL)
    output = model(objective.pictures(batch), tokens)
    rows = PairRows(image_embed_BD=output.image_embed_BD, text_embed_BD=output.text_embed_BD)
    contrastive = clip_loss(rows, logit_scale=output.logit_scale)
    captioning = F.cross_entropy(output.caption_logits_BLV.mT, output.labels_BL, ignore_index=0)
    assert (output.labels_BL == 0).any()  # there is padding to leave out
    torch.testing.assert_close(terms["loss"], contrastive + 2 * captioning)
    torch.testing.assert_close(terms[f"captioning/{kind}"], captioning)
    torch.testing.assert_close(terms[f"clip/{kind}"], contrastive)


def test_a_captioner_can_be_taught_to_write_alone(batch):
    torch.manual_seed(0)
    model = create("pocketclip_tiny_captioner").model
    _, terms = terms_of(model, batch, contrastive_weight=0.0, captioning_weight=1.0)
    torch.testing.assert_close(terms["loss"], terms["captioning/caption"])


def test_one_batch_in_parts_has_the_whole_batchs_gradient(shapes, tmp_path):
    # A ViT would have no statistics of a part; with BatchNorm parts are near, not equal, so the loss of step 1 it is.
    runs = {
        parts: captioner_config(loop={"num_steps": 2, "parts": parts}, stream={"seed": 3}) for parts in (1, 3)
    }
    for parts, run in runs.items():
        train(run, data=shapes, out=tmp_path / str(parts))
    one, three = (records(tmp_path / str(parts)) for parts in runs)
    assert three[0]["captioning/caption"] == pytest.approx(one[0]["captioning/caption"], rel=0.05)
    assert three[0]["loss"] == pytest.approx(one[0]["loss"], rel=0.05)


def test_it_learns_and_goes_on_bit_for_bit(shapes, tmp_path):
    run = captioner_config(loop={"num_steps": 9, "average_decay": 0.5}, stream={"cache_mb": 16})
    whole = train(run, data=shapes, out=tmp_path / "whole")
    losses = [record["captioning/caption"] for record in records(tmp_path / "whole")]
    assert losses[-1] < 0.7 * losses[0]

    def stop(_model):
        raise KeyboardInterrupt

    short = replace(run, loop=replace(run.loop, evaluate_every=5))
    with pytest.raises(KeyboardInterrupt):
        train(short, data=shapes, out=tmp_path / "cut", evaluate=stop)
    again = train(short, data=shapes, out=tmp_path / "cut", evaluate=lambda _: {})
    one, other = (load(path).model.state_dict() for path in (whole, again))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_can_be_fine_tuned_with_longer_texts(shapes, tmp_path):
    first = train(captioner_config(loop={"num_steps": 2}), data=shapes, out=tmp_path / "first")
    run = captioner_config(loop={"num_steps": 2}, start=str(first), context_length=40)
    tuned = load(train(replace(run, variant=None), data=shapes, out=tmp_path / "second"))
    assert tuned.config.tokenizer.context_length == tuned.config.model.text.context_length == 40
    assert isinstance(tuned.tokenizer, Tokenizer)
    assert np.shape(tuned.tokenizer("a red circle")) == (1, 40)


@pytest.mark.parametrize(
    ("variant", "objective", "reason"),
    [
        ("pocketclip_tiny", COCA, "captioning_weight is 2.0, and the model has no decoder: take a captioner"),
        ("pocketclip_tiny_captioner", {}, "the model is a captioner, and would not learn to write"),
    ],
)
def test_a_model_and_an_objective_that_do_not_go_together_are_told(
    shapes, tmp_path, variant, objective, reason
):
    with pytest.raises(ValueError, match=reason):
        train(config(variant=variant, objective=objective), data=shapes, out=tmp_path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"captioning_weight": -1.0}, "must not be negative"),
        ({"captioning_weight": 2.0, "synthetic_weight": 1.0}, "one kind of caption a step"),
        ({"contrastive_weight": 0.5}, "weighs against captioning_weight"),
    ],
)
def test_weights_that_make_no_sense_are_told(fields, reason):
    with pytest.raises(ValueError, match=reason):
        ObjectiveConfig(**fields)


@pytest.mark.slow
def test_two_ranks_are_one_with_the_double_batch(shapes, tmp_path):
    def run(batch_size, **loop):
        return captioner_config(
            stream={"batch_size": batch_size}, optim={"lr_peak": 2e-5}, loop={"num_steps": 6, **loop}
        )

    jobs = [
        {"config": run(8, parallel=parallel), "data": shapes, "out": tmp_path / parallel}
        for parallel in ("ddp", "fsdp2")
    ]
    done = torchrun(*jobs)
    assert done.returncode == 0, done.stderr
    train(run(16), data=shapes, out=tmp_path / "one")
    for parallel in ("ddp", "fsdp2"):
        assert curve(tmp_path / parallel) == pytest.approx(curve(tmp_path / "one"), rel=3e-5)
        one = weights(tmp_path / "one")
        for name, value in weights(tmp_path / parallel).items():
            assert (value - one[name]).abs().double().mean() < 2e-4, name
