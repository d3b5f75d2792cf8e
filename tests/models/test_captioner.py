"""The captioner: what its halves see, what the losses are given, and that it changes size and form as a CLIP does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pocketclip.models import (
    CAPTIONERS,
    VARIANTS,
    Captioner,
    CaptionerConfig,
    Clip,
    PoolConfig,
    fold,
    network,
)
from pocketclip.models.caption_text import visible
from pocketclip.models.count import describe_towers
from pocketclip.models.vit import ViTConfig

ROW = CAPTIONERS["pocketclip_tiny_captioner"]
VIT = ViTConfig(image_px=48, patch_px=16, width=48, heads=3, layers=2)
MODELS = {
    "fastvit": ROW.model,
    "vit": replace(ROW.model, image=VIT),
    "mean of patches": replace(ROW.model, image=replace(VIT, pool="avg", width=64, heads=4)),
}


@pytest.fixture(params=MODELS)
def model(request, scramble) -> Captioner:
    return scramble(network(MODELS[request.param]))


@pytest.fixture
def some(batch):
    return batch(ROW, 3)


def test_what_the_losses_need_is_given(model, some):
    image_BCHW, tokens_BL = some
    out = model(image_BCHW, tokens_BL)
    assert isinstance(model, Clip)
    for embed_BD in (out.image_embed_BD, out.text_embed_BD):
        assert embed_BD.shape == (3, 128)
        torch.testing.assert_close(embed_BD.norm(dim=-1), torch.ones(3))
    assert torch.equal(out.labels_BL, tokens_BL[:, 1:])
    assert out.caption_logits_BLV.shape == (*out.labels_BL.shape, 8192)
    torch.testing.assert_close(out.image_embed_BD, model.encode_image(image_BCHW, normalize=True))
    torch.testing.assert_close(out.text_embed_BD, model.encode_text(tokens_BL, normalize=True))
    torch.testing.assert_close(
        out.caption_logits_BLV, model.caption_logits(image_BCHW, tokens_BL)[:, :-1], atol=1e-5, rtol=1e-5
    )


def test_a_place_knows_the_tokens_up_to_it_and_the_picture(model, some):
    image_BCHW, tokens_BL = some
    tokens_BL = tokens_BL.clamp(min=1)
    before = model.caption_logits(image_BCHW, tokens_BL)
    changed = tokens_BL.clone()
    changed[:, 9] = changed[:, 9] % 8000 + 1
    after = model.caption_logits(image_BCHW, changed)
    torch.testing.assert_close(after[:, :9], before[:, :9], atol=1e-5, rtol=1e-5)
    assert (after[:, 9:] - before[:, 9:]).abs().amax(dim=-1).min() > 1e-3
    assert (model.caption_logits(image_BCHW + 1, tokens_BL) - before).abs().max() > 1e-3
    with torch.no_grad():
        model.decoder.head.weight.zero_()
    assert (
        model.encode_text(changed) - model.encode_text(tokens_BL)
    ).abs().max() > 1e-3  # the class token sees all


def test_padding_is_hidden_one_place_late():
    expected = torch.ones(6, 6).tril().bool()
    expected[:, 4:] = (
        False  # the tokens before these two places, the last of which is the class token's, are padding
    )
    assert torch.equal(visible(torch.tensor([[7, 8, 9, 0, 0]]))[0, 0], expected)


def test_less_memory_gives_the_same_gradients(some):
    def gradients(enabled):
        torch.manual_seed(0)
        made = network(ROW.model).train()
        made.set_gradient_checkpointing(enabled)
        out = made(*some)
        (
            out.caption_logits_BLV.square().mean() + out.image_embed_BD.sum() + out.text_embed_BD.sum()
        ).backward()
        return {name: value.grad for name, value in made.named_parameters() if value.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert {name.split(".")[0] for name in plain} == {"image", "text", "decoder"}
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value)


def test_folded_it_computes_the_same(model, some, relative_error):
    folded = fold(model)
    assert relative_error(folded(*some).caption_logits_BLV, model(*some).caption_logits_BLV) < 1e-4
    assert relative_error(folded(*some).image_embed_BD, model(*some).image_embed_BD) < 1e-4


def test_it_takes_longer_texts_and_larger_pictures(model, some):
    same = model.resized(image_px=48, context_length=26)
    torch.testing.assert_close(same(*some).caption_logits_BLV, model(*some).caption_logits_BLV)
    larger = model.resized(image_px=96, context_length=40)
    assert (larger.config.text.context_length, larger.text.position.shape[0]) == (40, 41)
    tokens_BL = torch.randint(1, 8000, (2, 40))
    assert larger(torch.randn(2, 3, 96, 96), tokens_BL).caption_logits_BLV.shape == (2, 39, 8192)
    with pytest.raises(ValueError, match="longer than this text tower's context_length 26"):
        model(torch.randn(2, 3, 48, 48), tokens_BL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_dim": 64}, "as wide as embed_dim 64"),
        ({"text": replace(ROW.model.text, causal=False)}, "must be causal"),
        ({"pool": PoolConfig(num_queries=4, heads=3)}, "pool's 3 heads"),
    ],
)
def test_parts_that_do_not_fit_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ROW.model, **change)


def test_a_pool_has_a_query_for_each_purpose():
    with pytest.raises(ValueError, match="at least 2 queries"):
        PoolConfig(num_queries=1)


def test_captioners_and_variants_are_apart_and_counted():
    assert not set(CAPTIONERS) & set(VARIANTS)
    for name, row in CAPTIONERS.items():
        assert row.name == name
        assert isinstance(row.model, CaptionerConfig)
    cost = describe_towers(ROW.model, image_px=48)
    made = network(ROW.model)
    assert cost.decoder is not None
    for part, tower in ((cost.image, made.image), (cost.text, made.text), (cost.decoder, made.decoder)):
        assert part.train.parameters == sum(value.numel() for value in tower.parameters())
    assert describe_towers(VARIANTS["pocketclip_tiny"].model, image_px=48).decoder is None
