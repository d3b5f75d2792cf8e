from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pocketclip.models import VARIANTS, Clip, ClipConfig, TextConfig, ViTConfig, fold
from pocketclip.models.count import Cost, TowerCost, describe_towers
from pocketclip.models.hybrid_text import HybridTextConfig
from pocketclip.models.transformer import SelfAttention

TEXT_TINY = VARIANTS["pocketclip_tiny"].model.text
VIT_TINY = VARIANTS["pocketclip_tiny_vit"].model.image
SMALL = {
    "tiny": VARIANTS["pocketclip_tiny"].model,
    "teacher": VARIANTS["pocketclip_tiny_teacher"].model,
    "conv-stem ViT": VARIANTS["pocketclip_tiny_vit"].model,
    "patch ViT with a class token": ClipConfig(
        image=ViTConfig(
            image_px=48, patch_px=12, width=64, heads=2, layers=2, class_position=True, pre_norm=True
        ),
        text=TextConfig(vocab_size=512, context_length=9, width=32, heads=2, layers=3, causal=True),
        embed_dim=24,
    ),
    "hybrid text": ClipConfig(
        image=VARIANTS["pocketclip_tiny"].model.image,
        text=HybridTextConfig(vocab_size=512, context_length=14, width=32, heads=2, layers=2, mixer_kernel=5),
        embed_dim=24,
    ),
}
# Millions of parameters in the paper's Table 8.
TABLE_8 = {
    "mobileclip_s0": (11.4, 42.4),
    "mobileclip_s1": (21.5, 63.4),
    "mobileclip_s2": (35.7, 63.4),
    "mobileclip_b": (86.3, 63.4),
    "mobileclip_s3": (125.1, 123.6),
    "mobileclip_s4": (321.6, 123.6),
    "mobileclip_l_14": (
        304.0,
        123.6,
    ),  # as timm's tower, which the published weights fit; the table says 304.3
    "mobileclip2_s0": (11.4, 63.4),
    "mobileclip2_s2": (35.7, 63.4),
    "mobileclip2_b": (86.3, 63.4),
    "mobileclip2_s3": (125.1, 123.6),
    "mobileclip2_s4": (321.6, 123.6),
    "mobileclip2_l_14": (304.0, 123.6),
}
TIMM = {
    "mobileclip2_s0": "fastvit_mci0",
    "mobileclip_s1": "fastvit_mci1",
    "mobileclip2_s2": "fastvit_mci2",
    "mobileclip2_s3": "fastvit_mci3",
    "mobileclip2_s4": "fastvit_mci4",
    "mobileclip2_b": "vit_base_mci_224",
    "mobileclip2_l_14": "vit_large_patch14_clip_224",
}


def inputs(config: ClipConfig) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 3, 48, 48), torch.arange(config.text.context_length).unsqueeze(0)


def counted_by_hand(tower: nn.Module, given: torch.Tensor) -> Cost:
    """Real weights, a real pass, and the definition of each kind of layer."""
    macs = 0

    def conv(layer: nn.Conv2d, _inputs: object, out: torch.Tensor) -> None:
        nonlocal macs
        macs += out[0].numel() * layer.weight[0].numel()

    def linear(layer: nn.Linear, _inputs: object, out: torch.Tensor) -> None:
        nonlocal macs
        macs += out[0].numel() * layer.in_features

    def attention(_layer: SelfAttention, _inputs: object, out_1LC: torch.Tensor) -> None:
        nonlocal macs
        _, L, C = out_1LC.shape
        macs += 2 * L * L * C

    rules = {nn.Conv2d: conv, nn.Linear: linear, SelfAttention: attention}
    for module in tower.modules():
        for kind, rule in rules.items():
            if isinstance(module, kind):
                module.register_forward_hook(rule)
    with torch.no_grad():
        tower(given)
    return Cost(parameters=sum(parameter.numel() for parameter in tower.parameters()), macs=macs)


@pytest.mark.parametrize("name", SMALL)
def test_totals_are_those_of_a_real_pass(name: str) -> None:
    config = SMALL[name]
    cost = describe_towers(config, image_px=48)
    model = Clip(config).eval()
    folded = fold(model)
    image_1CHW, tokens_1L = inputs(config)
    assert cost.image.train == counted_by_hand(model.image, image_1CHW)
    assert cost.image.folded == counted_by_hand(folded.image, image_1CHW)
    assert cost.text.train == counted_by_hand(model.text, tokens_1L)
    assert cost.text.folded == counted_by_hand(folded.text, tokens_1L)


@pytest.mark.parametrize("name", TABLE_8)
def test_the_paper_counts_as_many_parameters(name: str) -> None:
    row = VARIANTS[name]
    cost = describe_towers(row.model, image_px=row.image_px)
    counts = (cost.image.published_parameters, cost.text.published_parameters)
    # 0.05 is rounding, but for the large text tower: 123.6503 million, and the table says 123.6.
    assert tuple(count / 1e6 for count in counts) == pytest.approx(TABLE_8[name], abs=0.051)


def test_the_scaled_mci2_is_as_large_as_mci3_and_costs_twice_as_much() -> None:
    scaled, five_stages = (
        describe_towers(VARIANTS[name].model, image_px=256).image.folded
        for name in ("mci2_scaled", "mobileclip2_s3")
    )
    assert scaled.parameters == pytest.approx(five_stages.parameters, rel=0.01)
    assert scaled.macs / five_stages.macs == pytest.approx(1.9, abs=0.05)


@pytest.mark.reference
@pytest.mark.parametrize("name", TIMM)
def test_parameters_and_macs_are_timms(name: str) -> None:
    timm = pytest.importorskip("timm")
    row = VARIANTS[name]
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        reference = timm.create_model(TIMM[name], num_classes=row.model.embed_dim).eval()
        with counter, torch.no_grad():
            reference(torch.empty(1, 3, row.image_px, row.image_px))
    num_parameters = sum(parameter.numel() for parameter in reference.parameters())
    ours = describe_towers(row.model, image_px=row.image_px).image.train
    assert ours == Cost(parameters=num_parameters, macs=counter.get_total_flops() // 2)


def row(tower: TowerCost, name: str):
    return next(stage for stage in tower.stages if stage.name == name)


def test_rows_are_the_stages_with_what_leaves_them() -> None:
    cost = describe_towers(SMALL["hybrid text"], image_px=48)
    assert cost.image.input_shape == (3, 48, 48)
    assert [(stage.name, stage.shape) for stage in cost.image.stages] == [
        ("stem", (24, 12, 12)),
        ("stage 1", (24, 12, 12)),
        ("downsample 2", (48, 6, 6)),
        ("stage 2", (48, 6, 6)),
        ("downsample 3", (96, 3, 3)),
        ("stage 3, attention", (96, 3, 3)),
        ("expand", (192, 3, 3)),
        ("head", (24,)),
    ]
    assert cost.text.input_shape == (14,)
    assert [(stage.name, stage.shape) for stage in cost.text.stages] == [
        ("embedding", (14, 32)),
        ("block 1, RepMixer", (14, 32)),
        ("blocks 2-3", (14, 32)),
        ("block 4, RepMixer", (14, 32)),
        ("head", (24,)),
    ]
    vit = describe_towers(SMALL["patch ViT with a class token"], image_px=48).image
    assert [(stage.name, stage.shape) for stage in vit.stages] == [
        ("stem", (64, 4, 4)),
        ("positions", (17, 64)),
        ("blocks 1-2", (17, 64)),
        ("head", (24,)),
    ]


def test_folding_saves_where_branches_are() -> None:
    cost = describe_towers(SMALL["tiny"], image_px=48)
    for stage in cost.image.stages:
        if stage.name == "head":
            assert stage.folded == stage.train
        else:
            assert stage.folded.parameters < stage.train.parameters
            assert stage.folded.macs <= stage.train.macs
    assert cost.text.folded == cost.text.train


def test_a_larger_picture_costs_more_and_weighs_the_same() -> None:
    small, large = (describe_towers(SMALL["tiny"], image_px=px).image for px in (48, 96))
    assert large.train.parameters == small.train.parameters
    for name in ("stem", "stage 1", "stage 2"):
        assert row(large, name).folded.macs == 4 * row(small, name).folded.macs
    attention = "stage 3, attention"  # grows with the square of its places
    assert row(large, attention).folded.macs > 4 * row(small, attention).folded.macs
    assert row(large, "head").folded == row(small, "head").folded


def test_a_vit_gets_the_positions_of_its_picture() -> None:
    config = SMALL["conv-stem ViT"]
    small, large = (describe_towers(config, image_px=px).image for px in (48, 64))
    assert row(large, "blocks 1-3").shape == (64, 128)
    assert row(large, "positions").train.parameters - row(small, "positions").train.parameters == 28 * 128


def test_a_longer_text_has_more_positions() -> None:
    short = describe_towers(SMALL["tiny"], image_px=48).text
    long = describe_towers(SMALL["tiny"], image_px=48, context_length=200).text
    assert long.input_shape == (200,)
    assert row(long, "blocks 1-2").shape == (200, 128)
    assert long.train.parameters - short.train.parameters == (200 - TEXT_TINY.context_length) * 128
    assert row(long, "head") == row(short, "head")


def test_causal_attention_is_counted_in_full() -> None:
    for causal in (False, True):
        text = dataclasses.replace(TEXT_TINY, causal=causal)
        cost = describe_towers(dataclasses.replace(SMALL["tiny"], text=text), image_px=48)
        assert cost.text == describe_towers(SMALL["tiny"], image_px=48).text


def test_counting_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    describe_towers(SMALL["tiny"], image_px=48)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_px": 0}, "image_px is 0"),
        ({"image_px": 50}, "image_px 50 is not a multiple of patch_px 8"),
        ({"image_px": 48, "context_length": 0}, "context_length is 0"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe_towers(SMALL["conv-stem ViT"], **sizes)
