"""The table of names: total, one to one, and strict; judged by open_clip's and timm's own converters."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.checkpoint.conftest import fill
from torch import Tensor

from pocketclip.checkpoint.foreign_keys import (
    LAYOUTS,
    Layout,
    MisfitError,
    is_counter,
    our_tensors,
    their_tensors,
    to_ours,
    to_theirs,
    unnamed,
)
from pocketclip.models import VARIANTS, Clip, ClipConfig, FastViTConfig

# One block a stage, narrow, and a vocabulary of 600: every kind of tensor of the variant of that name.
SMALL = {
    name: replace(
        model,
        image=replace(model.image, widths=tuple(32 << stage for stage in range(len(model.image.widths))),
                      depths=(1,) * len(model.image.widths))
        if isinstance(model.image, FastViTConfig)
        else replace(model.image, layers=1),
        text=replace(model.text, vocab_size=600, context_length=9, width=64, heads=2, layers=2),
        embed_dim=24,
    )
    for name, model in ((row, VARIANTS[row].model) for row in (
        "mobileclip_s0", "mobileclip_s1", "mobileclip2_b", "mobileclip2_s3", "mobileclip2_l_14"))
}  # fmt: skip
HOLDS = [(name, layout) for name in SMALL for layout in LAYOUTS if not unnamed(SMALL[name], layout)]


def random_state(config: ClipConfig, *, seed: int = 0) -> dict[str, Tensor]:
    with torch.device("meta"):
        model = Clip(config)
    state = fill(model.to_empty(device="cpu"), seed=seed).state_dict()
    return {name: value.detach() for name, value in state.items()}


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, Tensor]]:
    """Random tensors of every small model. Do not change them."""
    return {name: random_state(config) for name, config in SMALL.items()}


def zeroed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the bias that Apple's v1 layout lacks."""
    return state | {"image.head.bias": torch.zeros_like(state["image.head.bias"])}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_are_one_to_one_and_nothing_is_left_out(name: str, layout: Layout) -> None:
    config = VARIANTS[name].model
    ours, nameless = our_tensors(config), unnamed(config, layout)
    theirs = their_tensors(config, layout)
    left_out = [name for name in ours if layout == "timm" and not name.startswith("image.")]
    zero = ["image.head.bias"] if layout == "apple-v1" else []
    assert len(theirs) + len(nameless) + len(left_out) + len(zero) == len(ours)
    if not nameless:
        counted = [name for name in ours if name not in zero and name not in left_out]
        assert sum(value.numel() for value in theirs.values()) == sum(ours[name].numel() for name in counted)


def test_which_layout_holds_which_variant() -> None:
    lacking = {
        layout: {name for name in VARIANTS if unnamed(VARIANTS[name].model, layout)} for layout in LAYOUTS
    }
    plain_stem = {"mobileclip_l_14", "mobileclip2_l_14"}
    assert lacking == {
        "pocketclip": set(),
        "open_clip": {"mobileclip_s0"},  # no hybrid text tower
        "timm": set(),
        "apple-v1": plain_stem,
    }


@pytest.mark.parametrize(("name", "layout"), HOLDS)
def test_there_and_back_is_the_same(states: Any, name: str, layout: Layout) -> None:
    state = zeroed(states[name])
    back = to_ours(to_theirs(state, config=SMALL[name], layout=layout), config=SMALL[name], layout=layout)
    assert list(back) == [key for key in state if layout != "timm" or key.startswith("image.")]
    for key, value in back.items():
        assert torch.equal(value, state[key]), key
        assert value.is_contiguous(), key
        assert value.data_ptr() != state[key].data_ptr(), key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_become_float32(states: Any, dtype: torch.dtype) -> None:
    config = SMALL["mobileclip2_b"]
    theirs = to_theirs(states["mobileclip2_b"], config=config, layout="open_clip")
    half = {name: value.to(dtype) if value.is_floating_point() else value for name, value in theirs.items()}
    for name, value in to_ours(half, config=config, layout="open_clip").items():
        expected = states["mobileclip2_b"][name]
        assert value.dtype == expected.dtype
        rounded = expected.to(dtype).float() if expected.is_floating_point() else expected
        assert torch.equal(value, rounded), name


def test_counters_may_be_missing_and_nothing_else(states: Any) -> None:
    config = SMALL["mobileclip2_s3"]
    theirs = to_theirs(states["mobileclip2_s3"], config=config, layout="open_clip")
    bare = {name: value for name, value in theirs.items() if not is_counter(name)}
    assert len(bare) < len(theirs)
    ours = to_ours(bare, config=config, layout="open_clip")
    for name, value in ours.items():
        expected = states["mobileclip2_s3"][name]
        assert torch.equal(value, torch.zeros_like(expected) if is_counter(name) else expected)


@given(data=st.data(), place=st.sampled_from(HOLDS))
def test_a_tensor_dropped_added_or_misshaped_is_named(
    states: Any, data: st.DataObject, place: tuple[str, Layout]
) -> None:
    name, layout = place
    theirs = to_theirs(zeroed(states[name]), config=SMALL[name], layout=layout)
    key = data.draw(st.sampled_from(sorted(key for key in theirs if not is_counter(key))))
    change = data.draw(st.sampled_from(("drop", "rename", "misshape", "retype")))
    value = theirs[key]
    expected = {
        "drop": f"missing {key}",
        "rename": f"surplus {key}.old",
        "misshape": f"{key} is [{', '.join(map(str, [2, *value.shape]))}], expected {list(value.shape)}",
        "retype": f"{key} is torch.int8, expected torch.float32",
    }[change]
    if change in ("drop", "rename"):
        del theirs[key]
    if change == "rename":
        theirs[f"{key}.old"] = value
    elif change == "misshape":
        theirs[key] = torch.stack([value, value])
    elif change == "retype":
        theirs[key] = value.to(torch.int8)
    with pytest.raises(MisfitError) as caught:
        to_ours(theirs, config=SMALL[name], layout=layout)
    assert expected in caught.value.problems
    assert expected in str(caught.value)
    assert len(caught.value.problems) == (2 if change == "rename" else 1)


def test_many_misfits_are_named_up_to_a_number_and_counted(states: Any) -> None:
    config = SMALL["mobileclip2_b"]
    theirs = to_theirs(states["mobileclip2_b"], config=config, layout="open_clip")
    wrong = {f"{name}.x": value for name, value in theirs.items()} | {"logit_scale": torch.zeros(2)}
    with pytest.raises(MisfitError) as caught:
        to_ours(wrong, config=config, layout="open_clip")
    sentence = str(caught.value)
    assert (sentence.count("missing "), sentence.count("surplus ")) == (8, 8)
    assert "logit_scale is [2], expected []" in sentence  # not lost behind the others
    assert sentence.endswith(f"; and {len(caught.value.problems) - 17} more")


def test_a_bias_that_the_layout_lacks_must_be_zero(states: Any) -> None:
    config, state = SMALL["mobileclip_s1"], states["mobileclip_s1"]
    with pytest.raises(
        ValueError, match=r"apple-v1 layout has no place for image\.head\.bias, .* not zero here"
    ):
        to_theirs(state, config=config, layout="apple-v1")
    theirs = to_theirs(zeroed(state), config=config, layout="apple-v1")
    assert "image_encoder.model.head.proj" in theirs
    assert torch.equal(theirs["image_encoder.model.head.proj"], state["image.head.weight"].T)


def test_what_the_layout_has_no_name_for_is_told(states: Any) -> None:
    with pytest.raises(ValueError, match=r"open_clip layout has no name for text\.position.*; and \d+ more"):
        to_theirs(states["mobileclip_s0"], config=SMALL["mobileclip_s0"], layout="open_clip")
    with pytest.raises(ValueError, match=r"apple-v1 layout has no name for image\.stem\.weight"):
        to_theirs(states["mobileclip2_l_14"], config=SMALL["mobileclip2_l_14"], layout="apple-v1")


def test_looking_at_a_configuration_leaves_torchs_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    our_tensors(replace(SMALL["mobileclip2_b"], embed_dim=31))
    assert torch.equal(torch.rand(3), expected)


# Other libraries as judges


def timm_tower(name: str) -> Any:
    timm = pytest.importorskip("timm")
    config = SMALL[name]
    if isinstance(config.image, FastViTConfig):
        kind = {"mobileclip_s0": "mci0", "mobileclip_s1": "mci1", "mobileclip2_s3": "mci3"}[name]
        return timm.create_model(
            f"fastvit_{kind}", layers=config.image.depths, embed_dims=config.image.widths, num_classes=24
        )
    kind = {"mobileclip2_b": "vit_base_mci_224", "mobileclip2_l_14": "vit_large_patch14_clip_224"}[name]
    return timm.create_model(kind, depth=1, num_classes=24)


@pytest.mark.reference
@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_timms_tower_takes_the_names_and_gives_the_same(states: Any, name: str) -> None:
    config = SMALL[name]
    theirs = timm_tower(name).eval()
    theirs.load_state_dict(to_theirs(states[name], config=config, layout="timm"), strict=True)
    ours = Clip(config).eval()
    ours.load_state_dict(states[name])
    size = 64 if isinstance(config.image, FastViTConfig) else 224
    image_BCHW = torch.rand(1, 3, size, size)
    expected = theirs(image_BCHW)
    assert (ours.image(image_BCHW) - expected).abs().max() / expected.abs().max() < 1e-5
    back = to_ours(theirs.state_dict(), config=config, layout="timm")
    assert back.keys() == {key for key in states[name] if key.startswith("image.")}
    assert all(torch.equal(value, states[name][key]) for key, value in back.items())


@pytest.mark.reference
@pytest.mark.parametrize("name", [name for name in SMALL if name != "mobileclip_s0"])
@torch.inference_mode()
def test_open_clips_text_tower_takes_the_names_and_gives_the_same(states: Any, name: str) -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    text = SMALL[name].text
    theirs = transformer.TextTransformer(
        context_length=text.context_length,
        vocab_size=text.vocab_size,
        width=text.width,
        heads=text.heads,
        layers=text.layers,
        output_dim=24,
        no_causal_mask=not text.causal,
    ).eval()
    named = to_theirs(states[name], config=SMALL[name], layout="open_clip")
    theirs.load_state_dict(
        {key.removeprefix("text."): value for key, value in named.items() if key.startswith("text.")},
        strict=True,
    )
    ours = Clip(SMALL[name]).eval()
    ours.load_state_dict(states[name])
    tokens_BL = torch.tensor([[598, 5, 6, 7, 599, 0, 0, 0, 0], [598, 1, 2, 3, 4, 5, 6, 7, 599]])
    expected = theirs(tokens_BL)
    assert (ours.text(tokens_BL) - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.reference
@pytest.mark.parametrize("name", ["mobileclip_s1", "mobileclip2_s3", "mobileclip2_b"])
def test_open_clip_reads_apples_names_as_we_write_them(states: Any, name: str) -> None:
    convert = pytest.importorskip("open_clip.convert")
    apple = to_theirs(zeroed(states[name]), config=SMALL[name], layout="apple-v1")

    class Model:  # what the converter looks at
        class visual:  # noqa: N801
            trunk = timm_tower(name)

    found = convert.convert_state_dict(Model, copy.deepcopy(apple))
    expected = to_theirs(zeroed(states[name]), config=SMALL[name], layout="open_clip")
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert torch.equal(value.reshape(expected[key].shape), expected[key]), key
