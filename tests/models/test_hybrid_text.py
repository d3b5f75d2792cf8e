"""The hybrid text tower, against its published arithmetic spelled out with plain functions."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pocketclip.checkpoint.records import structure, unstructure
from pocketclip.models import VARIANTS, Clip, ClipConfig, FastViTConfig, HybridTextConfig, fold
from pocketclip.models.hybrid_text import HybridText

SMALL = {"vocab_size": 100, "context_length": 24, "width": 32, "heads": 4, "layers": 2}
END = 99
# Our names -> those of the published MobileCLIP-S0.
PUBLISHED_NAMES = (
    (r"^token\.", "embedding_layer."),
    (r"^position$", "positional_embedding.pos_embed.pos_embed"),
    (r"^norm\.", "final_layer_norm."),
    (r"^head\.weight$", "projection_layer"),
    (r"^blocks\.", "transformer."),
    (r"\.mixer\.mix\.convs\.0\.conv\.", ".token_mixer.mixer.rbr_conv.0.conv."),
    (r"\.mixer\.mix\.convs\.0\.norm\.", ".token_mixer.mixer.rbr_conv.0.bn."),
    (r"\.mixer\.mix\.identity\.", ".token_mixer.mixer.rbr_skip."),
    (r"\.mixer\.norm\.", ".token_mixer.norm.rbr_skip."),
    (r"\.mixer\.scale$", ".token_mixer.layer_scale"),
    (r"\.ffn\.branch\.conv\.conv\.", ".convffn.conv.conv."),
    (r"\.ffn\.branch\.conv\.norm\.", ".convffn.conv.bn."),
    (r"\.ffn\.branch\.up\.", ".convffn.fc1."),
    (r"\.ffn\.branch\.down\.", ".convffn.fc2."),
    (r"\.ffn\.scale$", ".layer_scale"),
    (r"\.mixer\.branch\.norm\.", ".pre_norm_mha.0."),
    (r"\.mixer\.branch\.inner\.qkv\.", ".pre_norm_mha.1.qkv_proj."),
    (r"\.mixer\.branch\.inner\.out\.", ".pre_norm_mha.1.out_proj."),
    (r"\.ffn\.branch\.norm\.", ".pre_norm_ffn.0."),
    (r"\.ffn\.branch\.inner\.up\.", ".pre_norm_ffn.1."),
    (r"\.ffn\.branch\.inner\.down\.", ".pre_norm_ffn.4."),
)


def published_state(tower: HybridText) -> dict[str, Tensor]:
    state = {}
    for name, value in tower.state_dict().items():
        renamed = name
        for pattern, replacement in PUBLISHED_NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        assert renamed != name, name
        if renamed.endswith("layer_scale"):
            value = value[:, None, None]
        state[renamed] = value
    state["positional_embedding.pos_embed.pos_embed"] = tower.position[None, None]
    state["projection_layer"] = tower.head.weight.T
    return state


def published_forward(state: dict[str, Tensor], tokens_BL: Tensor, *, heads: int) -> Tensor:
    """What the published tower computes in eval mode, from its own names."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def layer_norm(name: str, x_BLC: Tensor) -> Tensor:
        width = x_BLC.shape[-1:]
        return F.layer_norm(x_BLC, width, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def batch_norm(name: str, x_BC1L: Tensor) -> Tensor:
        leaves = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x_BC1L, *leaves, training=False, eps=1e-5)

    def depthwise(name: str, x_BC1L: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        assert weight.shape == (x_BC1L.shape[1], 1, 1, 11)
        return F.conv2d(x_BC1L, weight, padding=(0, 5), groups=weight.shape[0])

    def pointwise(name: str, x_BC1L: Tensor) -> Tensor:
        return F.conv2d(x_BC1L, state[f"{name}.weight"], state[f"{name}.bias"])

    def convolutional(at: str, x_BLC: Tensor) -> Tensor:
        x_BC1L = x_BLC.permute(0, 2, 1)[:, :, None]
        mixer = f"{at}.token_mixer"
        mixed = batch_norm(f"{mixer}.mixer.rbr_skip", x_BC1L)
        mixed = mixed + batch_norm(
            f"{mixer}.mixer.rbr_conv.0.bn", depthwise(f"{mixer}.mixer.rbr_conv.0.conv", x_BC1L)
        )
        x_BC1L = x_BC1L + state[f"{mixer}.layer_scale"] * (
            mixed - batch_norm(f"{mixer}.norm.rbr_skip", x_BC1L)
        )
        hidden = batch_norm(f"{at}.convffn.conv.bn", depthwise(f"{at}.convffn.conv.conv", x_BC1L))
        hidden = pointwise(f"{at}.convffn.fc2", F.gelu(pointwise(f"{at}.convffn.fc1", hidden)))
        x_BC1L = x_BC1L + state[f"{at}.layer_scale"] * hidden
        return x_BC1L[:, :, 0].permute(0, 2, 1)

    def attentive(at: str, x_BLC: Tensor) -> Tensor:
        B, L, C = x_BLC.shape
        qkv = linear(f"{at}.pre_norm_mha.1.qkv_proj", layer_norm(f"{at}.pre_norm_mha.0", x_BLC))
        q, k, v = (one.reshape(B, L, heads, -1).transpose(1, 2) for one in qkv.split(C, dim=-1))
        weights = ((q * (C // heads) ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
        mixed_BLC = (weights @ v).transpose(1, 2).reshape(B, L, C)
        x_BLC = x_BLC + linear(f"{at}.pre_norm_mha.1.out_proj", mixed_BLC)
        hidden = F.gelu(linear(f"{at}.pre_norm_ffn.1", layer_norm(f"{at}.pre_norm_ffn.0", x_BLC)))
        return x_BLC + linear(f"{at}.pre_norm_ffn.4", hidden)

    x_BLC = F.embedding(tokens_BL, state["embedding_layer.weight"])
    position_11LC = state["positional_embedding.pos_embed.pos_embed"]
    if position_11LC.shape[2] != x_BLC.shape[1]:
        position_11LC = F.interpolate(position_11LC, size=x_BLC.shape[1:], mode="bilinear")
    x_BLC = x_BLC + position_11LC[0]
    block = 0
    while any(name.startswith(f"transformer.{block}.") for name in state):
        at = f"transformer.{block}"
        is_convolutional = f"{at}.layer_scale" in state
        x_BLC = convolutional(at, x_BLC) if is_convolutional else attentive(at, x_BLC)
        block += 1
    x_BLC = layer_norm("final_layer_norm", x_BLC)
    return x_BLC[torch.arange(len(x_BLC)), tokens_BL.argmax(-1)] @ state["projection_layer"]


def texts(length: int) -> Tensor:
    tokens_BL = torch.randint(1, 97, (3, length))
    for row, end in zip(tokens_BL, (1, length // 2, length - 1), strict=True):
        row[end] = END
        row[end + 1 :] = 0
    return tokens_BL


@pytest.mark.parametrize("length", [24, 23, 11, 2])
@torch.no_grad()
def test_equals_the_published_arithmetic(length, scramble, relative_error) -> None:
    tower = scramble(HybridText(HybridTextConfig(**SMALL), embed_dim=8))
    tokens_BL = texts(length)
    expected_BD = published_forward(published_state(tower), tokens_BL, heads=SMALL["heads"])
    assert relative_error(tower(tokens_BL), expected_BD) < 1e-5
    assert relative_error(fold(tower)(tokens_BL), expected_BD) < 1e-5
    assert relative_error(tower(tokens_BL), expected_BD.roll(1, 0)) > 1e-3


@torch.no_grad()
def test_a_longer_context_is_the_published_one(scramble, relative_error) -> None:
    """The published tower interpolates its positions whenever a text has another length."""
    image = FastViTConfig(widths=(8,), depths=(1,), attention_stages=0, squeeze_stages=0)
    model = scramble(Clip(ClipConfig(image=image, text=HybridTextConfig(**SMALL), embed_dim=8)))
    tokens_BL = texts(40)
    longer = model.resized(context_length=40)
    expected_BD = published_forward(published_state(model.text), tokens_BL, heads=SMALL["heads"])
    assert relative_error(longer.encode_text(tokens_BL), expected_BD) < 1e-5


def test_blocks_are_laid_out_as_published() -> None:
    row = VARIANTS["mobileclip_s0"].model
    with torch.device("meta"):
        state = published_state(HybridText(row.text, embed_dim=row.embed_dim))
    convolutional = [block for block in range(6) if f"transformer.{block}.layer_scale" in state]
    assert convolutional == [0, 5]
    assert state["positional_embedding.pos_embed.pos_embed"].shape == (1, 1, 77, 512)
    assert state["transformer.0.token_mixer.mixer.rbr_conv.0.conv.weight"].shape == (512, 1, 1, 11)
    assert not [name for name in state if "rbr_scale" in name]


def test_too_many_tokens_are_refused() -> None:
    tower = HybridText(HybridTextConfig(**SMALL), embed_dim=8)
    with pytest.raises(ValueError, match="25 tokens is longer .* context_length 24"):
        tower(torch.ones(1, 25, dtype=torch.int64))


def test_every_parameter_learns() -> None:
    tower = HybridText(HybridTextConfig(**SMALL), embed_dim=8)
    tower(texts(24)).square().sum().backward()
    assert not [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()]


def test_config_comes_back_from_json_as_what_it_was() -> None:
    for name in ("mobileclip_s0", "mobileclip2_s0"):
        model = VARIANTS[name].model
        assert structure(unstructure(model), ClipConfig) == model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "multiple of heads 5"),
        ({"layers": 0}, "layers is 0"),
        ({"mixer_kernel": 4}, "mixer_kernel is 4; it must be odd"),
    ],
)
def test_bad_configs_are_refused_with_the_field(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        HybridTextConfig(**{**SMALL, **change})
