"""Other sizes of pictures and texts: positions interpolated as the reference libraries do, nothing else changed."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.models import VARIANTS, Clip, ViTConfig, fold
from pocketclip.models.resize import resize_image_positions, resize_text_positions


@pytest.mark.reference
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(("old_side", "side"), [(14, 24), (16, 9), (4, 5), (7, 1)])
def test_image_positions_equal_timm_and_open_clip(before, old_side, side) -> None:
    pos_embed = pytest.importorskip("timm.layers.pos_embed")
    open_clip_model = pytest.importorskip("open_clip.model")
    position_LC = torch.randn(before + old_side**2, 6)
    ours = resize_image_positions(position_LC, old_side=old_side, side=side)
    timms = pos_embed.resample_abs_pos_embed(position_LC[None], [side, side], num_prefix_tokens=before)
    assert torch.equal(ours, timms[0])
    if before:
        state = {"visual.positional_embedding": position_LC}
        target = torch.nn.Module()
        target.visual = torch.nn.Module()
        target.visual.grid_size = (side, side)
        open_clip_model.resize_pos_embed(state, target)
        assert torch.equal(ours, state["visual.positional_embedding"])


@pytest.mark.reference
@pytest.mark.parametrize(("old", "length"), [(77, 154), (77, 33), (77, 78), (26, 3), (77, 77)])
def test_text_positions_equal_open_clip(old, length) -> None:
    open_clip_model = pytest.importorskip("open_clip.model")
    position_LC = torch.randn(old, 6)
    target = torch.nn.Module()
    target.positional_embedding = torch.zeros(length, 6)
    state = {"positional_embedding": position_LC}
    open_clip_model.resize_text_pos_embed(state, target)
    assert torch.equal(resize_text_positions(position_LC, length), state["positional_embedding"])


@given(
    old=st.integers(1, 12),
    new=st.integers(1, 24),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
@settings(max_examples=40)
def test_flat_positions_stay_flat_and_keep_their_dtype(old: int, new: int, dtype: torch.dtype) -> None:
    flat_C = torch.tensor([1.0, -2.0, 0.5], dtype=dtype)
    text_LC = resize_text_positions(flat_C.expand(old, 3), new)
    image_LC = resize_image_positions(flat_C.expand(old * old + 1, 3), old_side=old, side=new)
    for position_LC, places in ((text_LC, new), (image_LC, new * new + 1)):
        torch.testing.assert_close(position_LC, flat_C.expand(places, 3))


@torch.no_grad()
def test_same_sizes_are_the_same_model(narrow, batch) -> None:
    model = Clip(narrow.model).eval()
    same = model.resized(image_px=narrow.image_px, context_length=narrow.model.text.context_length)
    assert same is not model
    assert same.config == model.config
    for key, value in same.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
        assert value.data_ptr() != model.state_dict()[key].data_ptr()
    inputs = batch(narrow, 2)
    for ours, theirs in zip(same(*inputs), model(*inputs), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("is_folded", [False, True])
@torch.no_grad()
def test_other_sizes_are_a_new_model_that_takes_them(narrow, batch, is_folded) -> None:
    model = Clip(narrow.model).eval().to(torch.bfloat16)
    model = fold(model) if is_folded else model
    model.text.position.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    image = narrow.model.image
    px = image.patch_px * 6 if isinstance(image, ViTConfig) else 100
    larger = model.resized(image_px=px, context_length=13)
    assert larger.config.text.context_length == larger.text.config.context_length == 13
    assert larger.config.image == larger.image.config
    if isinstance(image, ViTConfig):
        assert larger.config.image.image_px == px
    assert larger.text.position.shape[0] == 13
    assert not larger.text.position.requires_grad
    image_BCHW = torch.randn(2, 3, px, px, dtype=torch.bfloat16)
    tokens_BL = torch.randint(1, 60, (2, 13))
    assert larger.encode_image(image_BCHW).isfinite().all()
    assert larger.encode_text(tokens_BL).isfinite().all()
    changed = [key for key, value in larger.state_dict().items() if value.shape != before[key].shape]
    assert changed == (["image.position"] if isinstance(image, ViTConfig) else []) + ["text.position"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
        assert key in changed or torch.equal(larger.state_dict()[key], value)


@torch.no_grad()
def test_a_longer_context_and_back_reads_shorter_texts_as_before(narrow, batch, relative_error) -> None:
    model = Clip(narrow.model).eval()
    _, tokens_BL = batch(narrow, 4)
    there = model.resized(context_length=24).resized(
        context_length=8
    )  # three places for each, the middle one's own
    assert relative_error(there.encode_text(tokens_BL), model.encode_text(tokens_BL)) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_px": 0}, "image_px is 0"),
        ({"image_px": 50}, "image_px 50 is not a multiple of patch_px 8"),
        ({"context_length": 0}, "context_length is 0"),
    ],
)
def test_impossible_sizes_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        Clip(VARIANTS["pocketclip_tiny_vit"].model).resized(**change)
