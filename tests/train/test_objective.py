"""The total loss is the formula written out, for both kinds of caption and every teacher."""

import numpy as np
import pytest
import torch

from pocketclip.checkpoint import create
from pocketclip.data.stream import Batch, StoredRows
from pocketclip.losses import TeacherRows, clip_loss, distill_loss
from pocketclip.train import Objective, ObjectiveConfig

NAMES = ("one", "two")


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(0)
    return create("pocketclip_tiny")


def unit(width, seed):
    rows = np.random.default_rng(seed).standard_normal((4, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def batch(start):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    stored = {
        name: StoredRows(
            image_BD=unit(5 + i, 10 * i),
            text_BD=unit(5 + i, 1 + i),
            synthetic_BD=unit(5 + i, 2 + i),
            logit_scale=20.0 + i,
        )
        for i, name in enumerate(NAMES)
    }
    return Batch(
        keys=("a", "b", "c", "d"),
        pixels_BHWC=pixels,
        tokens_BL=start.tokenizer(["red", "green", "blue", "black"]),
        synthetic_BL=start.tokenizer(["one red", "one green", "one blue", "one black"]),
        stored=stored,
    )


def objective(start, **weights):
    return Objective(ObjectiveConfig(**weights), preprocess=start.config.preprocess, device="cpu")


def test_the_total_is_the_formula(start, batch):
    weights = {"distill_weight": 0.7, "caption_weight": 1.0, "synthetic_weight": 3.0}
    terms = objective(start, **weights)(start.model, batch)
    image = torch.from_numpy(start.config.preprocess.normalise(batch.pixels_BHWC))
    expected = 0.0
    for share, tokens, kind in (
        (0.25, batch.tokens_BL, "text_BD"),
        (0.75, batch.synthetic_BL, "synthetic_BD"),
    ):
        output = start.model(image, torch.from_numpy(tokens))
        teachers = {
            name: TeacherRows(
                image_embed_BD=torch.from_numpy(rows.image_BD),
                text_embed_BD=torch.from_numpy(getattr(rows, kind)),
                logit_scale=rows.logit_scale,
            )
            for name, rows in batch.stored.items()
        }
        pair = (output.image_embed_BD, output.text_embed_BD)
        plain = clip_loss(*pair, logit_scale=output.logit_scale)
        kl = distill_loss(*pair, logit_scale=output.logit_scale, teachers=teachers)
        expected = expected + share * (0.3 * plain + 0.7 * kl)
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-5, atol=1e-6)
    assert set(terms) == {
        "loss", "clip/caption", "clip/synthetic", "distill/caption", "distill/synthetic", "logit_scale"
    }  # fmt: skip


def test_plain_training_reads_no_teacher(start, batch):
    terms = objective(start)(start.model, batch)
    assert set(terms) == {"loss", "clip/caption", "logit_scale"}
    assert torch.equal(terms["loss"], terms["clip/caption"])
    terms = objective(start, distill_weight=1.0)(start.model, batch)
    assert set(terms) == {"loss", "distill/caption", "logit_scale"}


def test_the_logit_scale_is_bounded(start, batch):
    before = start.model.logit_scale.detach().clone()
    with torch.no_grad():
        start.model.logit_scale.fill_(8.0)
    try:
        terms = objective(start)(start.model, batch)
        assert float(terms["logit_scale"].detach()) == 100.0
    finally:
        with torch.no_grad():
            start.model.logit_scale.copy_(before)


def test_weights_without_their_data_are_refused(start, batch):
    bare = Batch(
        keys=batch.keys,
        pixels_BHWC=batch.pixels_BHWC,
        tokens_BL=batch.tokens_BL,
        synthetic_BL=None,
        stored={},
    )
    with pytest.raises(ValueError, match="set stream.replay"):
        objective(start, distill_weight=0.5)(start.model, bare)
    with pytest.raises(ValueError, match="set stream.synthetic"):
        objective(start, synthetic_weight=0.5)(start.model, bare)
    with pytest.raises(ValueError, match="distill_weight"):
        ObjectiveConfig(distill_weight=1.5)
    with pytest.raises(ValueError, match="nor both zero"):
        ObjectiveConfig(caption_weight=0.0)
