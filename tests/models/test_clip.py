from __future__ import annotations

import math

import pytest
import torch

from pocketclip.models import VARIANTS, Clip, fold

TINY = ["pocketclip_tiny", "pocketclip_tiny_vit", "pocketclip_tiny_teacher"]


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@torch.no_grad()
def test_s0_equals_open_clip(clip_from_open_clip, batch, scramble, relative_error) -> None:
    open_clip = pytest.importorskip("open_clip")
    reference = scramble(open_clip.create_model("MobileCLIP2-S0"))
    ours = Clip(VARIANTS["mobileclip2_s0"].model).eval()
    ours.load_state_dict(clip_from_open_clip(reference.state_dict()), strict=True)
    image_BCHW, tokens_BL = batch(VARIANTS["mobileclip2_s0"], 2)
    for normalize in (False, True):
        image_BD = ours.encode_image(image_BCHW, normalize=normalize)
        text_BD = ours.encode_text(tokens_BL, normalize=normalize)
        assert relative_error(image_BD, reference.encode_image(image_BCHW, normalize=normalize)) < 1e-5
        assert relative_error(text_BD, reference.encode_text(tokens_BL, normalize=normalize)) < 1e-5
    theirs = reference(image_BCHW, tokens_BL)
    torch.testing.assert_close(ours(image_BCHW, tokens_BL).logit_scale, theirs[2])


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_forward_is_both_encoders_and_the_scale(name, batch) -> None:
    model = Clip(VARIANTS[name].model).eval()
    image_BCHW, tokens_BL = batch(VARIANTS[name], 3)
    out = model(image_BCHW, tokens_BL)
    assert torch.equal(out.image_embed_BD, model.encode_image(image_BCHW, normalize=True))
    assert torch.equal(out.text_embed_BD, model.encode_text(tokens_BL, normalize=True))
    assert out.image_embed_BD.shape == out.text_embed_BD.shape == (3, VARIANTS[name].model.embed_dim)
    assert math.isclose(out.logit_scale.item(), 1 / 0.07, rel_tol=1e-6)
    torch.testing.assert_close(out.image_embed_BD.norm(dim=-1), torch.ones(3))


@pytest.mark.parametrize("name", TINY)
def test_a_few_steps_tell_eight_pairs_apart(name, batch) -> None:
    model = Clip(VARIANTS[name].model)
    image_BCHW, tokens_BL = batch(VARIANTS[name], 8)
    image_BCHW += 2 * torch.randn(8, 3, 1, 1)  # each picture has its colour
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    target = torch.arange(8)
    for _ in range(40):
        image_BD, text_BD, scale = model(image_BCHW, tokens_BL)
        loss = torch.nn.functional.cross_entropy(scale * image_BD @ text_BD.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * math.log(8)


@torch.no_grad()
def test_folded_towers_export_with_a_free_batch_size(narrow, batch, relative_error) -> None:
    model = fold(Clip(narrow.model).eval())
    inputs = dict(zip(("image", "text"), batch(narrow, 2), strict=True))
    others = dict(zip(("image", "text"), batch(narrow, 5), strict=True))
    for tower, example in inputs.items():
        module = model.get_submodule(tower)
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(module, (example,), dynamic_shapes=shapes).module()
        for tensor in (others[tower], others[tower][:1]):
            assert relative_error(program(tensor), module(tensor)) < 1e-6
