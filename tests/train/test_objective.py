"""The objective equals the published formula written out by hand, on each kind of caption and with each teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.stream import Batch, StoredRows
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
from pocketclip.models import VARIANTS
from pocketclip.models.clip import Clip
from pocketclip.train import Objective, ObjectiveConfig

torch.set_num_threads(1)
B, L, PX, VOCAB = 5, 6, 8, 50
PREPROCESS = Preprocess(size=PX, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), interpolation="bilinear")


class Output(NamedTuple):
    image_embed_BD: Tensor
    text_embed_BD: Tensor
    logit_scale: Tensor


class Towers(nn.Module):
    """The smallest thing that is called as a `Clip` is."""

    def __init__(self, *, scale: float = 12.0):
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(3 * PX * PX, 4)
        self.text = nn.EmbeddingBag(VOCAB, 4)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, image_BCHW, tokens_BL):
        return Output(
            nn.functional.normalize(self.image(image_BCHW.flatten(1)), dim=1),
            nn.functional.normalize(self.text(tokens_BL), dim=1),
            self.logit_scale.exp(),
        )


def unit(rng, width):
    rows = rng.standard_normal((B, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_batch(*, synthetic=True, teachers=(("conv", 7, 30.0), ("vit", 3, 70.0))):
    rng = np.random.default_rng(3)
    return Batch(
        keys=tuple("abcde"),
        pixels_BHWC=rng.integers(0, 256, (B, PX, PX, 3), dtype=np.uint8),
        tokens_BL=rng.integers(0, VOCAB, (B, L)),
        synthetic_BL=rng.integers(0, VOCAB, (B, L)) if synthetic else None,
        stored={
            name: StoredRows(
                image_BD=unit(rng, width),
                text_BD=unit(rng, width),
                synthetic_BD=unit(rng, width) if synthetic else None,
                logit_scale=scale,
            )
            for name, width, scale in teachers
        },
    )


def terms_of(config, batch, model=None):
    model = model or Towers()
    objective = Objective(ObjectiveConfig(**config), preprocess=PREPROCESS, device="cpu")
    objective.prepare(model)
    return objective.loss(objective.encode(model, batch), batch)


# The formula, in float64 and in the letters of the paper (arXiv 2508.20691, eq. 1-3)


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def clip(image, text, scale):
    rows, columns = log_softmax(scale * image @ text.T), log_softmax(scale * text @ image.T)
    return -(np.diag(rows).mean() + np.diag(columns).mean()) / 2


def distill(image, text, scale, teachers):
    total = 0.0
    for teacher_image, teacher_text, teacher_scale in teachers:
        for log_p, log_q in (
            (
                log_softmax(teacher_scale * teacher_image @ teacher_text.T),
                log_softmax(scale * image @ text.T),
            ),
            (
                log_softmax(teacher_scale * teacher_text @ teacher_image.T),
                log_softmax(scale * text @ image.T),
            ),
        ):
            total += (np.exp(log_p) * (log_p - log_q)).sum()
    return total / (2 * B * len(teachers))


class ByHand(NamedTuple):
    image: np.ndarray
    embed_text: Callable[[np.ndarray], np.ndarray]
    scale: float


def by_hand(model, batch):
    pixels = batch.pixels_BHWC.astype(np.float64).transpose(0, 3, 1, 2) / 255.0
    mean, std = (np.array(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    weight, bias = (p.detach().double().numpy() for p in (model.image.weight, model.image.bias))
    image = ((pixels - mean) / std).reshape(B, -1) @ weight.T + bias
    table = model.text.weight.detach().double().numpy()

    def embed_text(tokens):
        rows = table[tokens].mean(axis=1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    image = image / np.linalg.norm(image, axis=1, keepdims=True)
    return ByHand(image, embed_text, model.logit_scale.exp().item())


def stored_rows(batch, kind):
    return [
        (rows.image_BD, rows.text_BD if kind == "caption" else rows.synthetic_BD, rows.logit_scale)
        for rows in batch.stored.values()
    ]


@pytest.mark.parametrize("distill_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("caption_weight", "synthetic_weight"), [(1.0, 0.0), (0.5, 2.0), (0.0, 1.0)])
@pytest.mark.parametrize("num_teachers", [1, 2])
def test_the_loss_is_the_formula_written_out(distill_weight, caption_weight, synthetic_weight, num_teachers):
    model, batch = Towers(), make_batch()
    for name in list(batch.stored)[num_teachers:]:
        del batch.stored[name]
    hand = by_hand(model, batch)
    expected, total = {}, 0.0
    for kind, tokens, weight in (
        ("caption", batch.tokens_BL, caption_weight),
        ("synthetic", batch.synthetic_BL, synthetic_weight),
    ):
        if weight == 0.0:
            continue
        text = hand.embed_text(tokens)
        parts = {
            "clip": clip(hand.image, text, hand.scale),
            "distill": distill(hand.image, text, hand.scale, stored_rows(batch, kind)),
        }
        loss = (1 - distill_weight) * parts["clip"] + distill_weight * parts["distill"]
        total += weight / (caption_weight + synthetic_weight) * loss
        expected |= {f"{name}/{kind}": value for name, value in parts.items()}
    if distill_weight == 0.0:
        expected = {name: value for name, value in expected.items() if "distill" not in name}
    if distill_weight == 1.0:
        expected = {name: value for name, value in expected.items() if "clip" not in name}
    config = {
        "distill_weight": distill_weight,
        "caption_weight": caption_weight,
        "synthetic_weight": synthetic_weight,
    }
    terms = {name: value.detach() for name, value in terms_of(config, batch, model).items()}
    assert terms.keys() == {"loss", "logit_scale", *expected}
    for name, value in {**expected, "loss": total, "logit_scale": 12.0}.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name


def test_only_the_ratio_of_the_captions_weights_counts():
    batch = make_batch()
    one = terms_of({"distill_weight": 0.5, "caption_weight": 1.0, "synthetic_weight": 3.0}, batch)
    two = terms_of({"distill_weight": 0.5, "caption_weight": 0.25, "synthetic_weight": 0.75}, batch)
    assert one["loss"].item() == pytest.approx(two["loss"].item(), rel=1e-6)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it():
    model, batch = Towers(), make_batch(synthetic=False, teachers=[("self", 4, 12.0)])
    hand = by_hand(model, batch)
    rows = StoredRows(
        image_BD=hand.image.astype(np.float32),
        text_BD=hand.embed_text(batch.tokens_BL).astype(np.float32),
        synthetic_BD=None,
        logit_scale=hand.scale,
    )
    batch.stored["self"] = rows
    assert terms_of({"distill_weight": 1.0}, batch, model)["loss"].item() == pytest.approx(0.0, abs=1e-6)


def test_a_logit_scale_above_a_hundred_is_brought_back_and_can_fall_again():
    model, batch = Towers(scale=5000.0), make_batch()
    terms = terms_of({"distill_weight": 0.5}, batch, model)
    assert terms["logit_scale"].item() == pytest.approx(100.0)
    assert model.logit_scale.exp().item() == pytest.approx(100.0)
    at_hundred = terms_of({"distill_weight": 0.5}, batch, Towers(scale=100.0))
    assert terms["loss"].item() == pytest.approx(at_hundred["loss"].item(), rel=1e-5)
    # Random embeddings deserve no such sharpness: there is a slope down, and a step follows it.
    terms["loss"].backward()
    assert model.logit_scale.grad.item() > 0
    with torch.no_grad():
        model.logit_scale -= 1e-3 * model.logit_scale.grad
    assert terms_of({"distill_weight": 0.5}, batch, model)["logit_scale"].item() < 99.99


def test_a_logit_scale_below_is_left_alone():
    model = Towers(scale=99.0)
    before = model.logit_scale.item()
    terms_of({}, make_batch(), model)
    assert model.logit_scale.item() == before


def test_every_part_of_the_student_learns():
    model = Towers()
    terms_of({"distill_weight": 0.5, "synthetic_weight": 1.0}, make_batch(), model)["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_cutting_texts_changes_nothing_where_the_tower_is_causal():
    """To the last digits: sums over fewer places are added up in another order."""
    torch.manual_seed(0)
    tiny = VARIANTS["pocketclip_tiny_vit"].model
    model = Clip(replace(tiny, text=replace(tiny.text, causal=True, context_length=40)))
    tokenize = Tokenizer(TokenizerConfig(vocab_size=8192, context_length=40))
    texts = [tokenize([f"{word} " * count for word in "abcde"]) for count in (3, 9)]
    batch = replace(
        make_batch(),
        pixels_BHWC=np.zeros((B, 48, 48, 3), np.uint8),
        tokens_BL=texts[0],
        synthetic_BL=texts[1],
    )
    lengths, losses, gradients = [], [], []
    model.text.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    for cut in (False, True):
        objective = Objective(
            ObjectiveConfig(distill_weight=0.5, synthetic_weight=1.0),
            preprocess=PREPROCESS,
            device="cpu",
            cut_texts=cut,
        )
        terms = objective.loss(objective.encode(model, batch), batch)
        model.zero_grad()
        terms["loss"].backward()
        losses.append(terms["loss"].item())
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert lengths == [40, 16]  # nine words, start and end, and on to a multiple of eight
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6)


def test_a_batch_without_what_is_asked_is_a_sentence():
    with pytest.raises(
        ValueError, match=r"distill_weight is set but no embeddings are read: set stream\.replay"
    ):
        terms_of({"distill_weight": 0.5}, make_batch(teachers=()))
    with pytest.raises(ValueError, match=r"no synthetic caption is read: set stream\.synthetic"):
        terms_of({"synthetic_weight": 0.5}, make_batch(synthetic=False))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"distill_weight": -0.1}, "distill_weight must be in"),
        ({"distill_weight": 1.1}, "distill_weight must be in"),
        ({"caption_weight": -1.0}, "must not be negative"),
        ({"caption_weight": 0.0}, "nor both zero"),
    ],
)
def test_weights_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**fields)
