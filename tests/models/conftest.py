"""Models with nothing left at its starting value, and the names other libraries give our weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from pocketclip.models import VARIANTS, FastViTConfig, Variant

IMAGE_NAMES = (
    # convolutional blocks
    (r"conv_kxk\.0\.(conv)\.", r"conv.convs.0.\1."),
    (r"conv_kxk\.0\.bn\.", r"conv.convs.0.norm."),
    (r"conv_scale\.conv\.", r"conv.convs.1.conv."),
    (r"conv_scale\.bn\.", r"conv.convs.1.norm."),
    (r"(proj\.\d+|stem\.\d+|final_conv|mixer)\.identity\.", r"\1.conv.identity."),
    (r"large_conv\.conv\.", r"conv.convs.0.conv."),
    (r"large_conv\.bn\.", r"conv.convs.0.norm."),
    (r"small_conv\.conv\.", r"conv.convs.1.conv."),
    (r"small_conv\.bn\.", r"conv.convs.1.norm."),
    (r"\.se\.fc1\.", r".squeeze.reduce."),
    (r"\.se\.fc2\.", r".squeeze.expand."),
    (r"\.downsample\.proj\.", r".downsample."),
    (r"\.pos_emb\.pos_enc\.", r".position.conv."),
    (r"^final_conv\.", r"expand."),
    (r"^head\.fc\.", r"head."),
    # blocks of a stage
    (r"\.token_mixer\.norm\.identity\.", r".mixer.norm."),
    (r"\.token_mixer\.mixer\.conv\.", r".mixer.mix."),
    (r"\.token_mixer\.layer_scale\.gamma$", r".mixer.scale"),
    (r"\.token_mixer\.qkv\.", r".mixer.branch.attention.qkv."),
    (r"\.token_mixer\.proj\.", r".mixer.branch.attention.out."),
    (r"(blocks\.\d+)\.norm\.", r"\1.mixer.branch.norm."),
    (r"\.layer_scale_1\.gamma$", r".mixer.scale"),
    (r"\.layer_scale(_2)?\.gamma$", r".ffn.scale"),
    (r"\.mlp\.conv\.conv\.", r".ffn.branch.conv.conv."),
    (r"\.mlp\.conv\.bn\.", r".ffn.branch.conv.norm."),
    (r"(stages.*)\.mlp\.fc1\.", r"\1.ffn.branch.up."),
    (r"(stages.*)\.mlp\.fc2\.", r"\1.ffn.branch.down."),
    # ViT
    (r"^patch_embed\.proj\.", r"stem."),
    (r"^patch_embed\.backbone\.0\.conv\.", r"stem.0.conv."),
    (r"^patch_embed\.backbone\.0\.bn\.", r"stem.0.norm."),
    (r"^patch_embed\.backbone\.1\.conv\.", r"stem.2.conv."),
    (r"^patch_embed\.backbone\.1\.bn\.", r"stem.2.norm."),
    (r"^patch_embed\.backbone\.2\.conv\.", r"stem.4."),
    (r"^cls_token$", r"class_token"),
    (r"^pos_embed$", r"position"),
    (r"^norm_pre\.", r"pre_norm."),
    (r"\.norm1\.", r".mixer.branch.norm."),
    (r"\.attn\.qkv\.", r".mixer.branch.inner.qkv."),
    (r"\.attn\.proj\.", r".mixer.branch.inner.out."),
    (r"\.norm2\.", r".ffn.branch.norm."),
    (r"^(blocks\.\d+)\.mlp\.fc1\.", r"\1.ffn.branch.inner.up."),
    (r"^(blocks\.\d+)\.mlp\.fc2\.", r"\1.ffn.branch.inner.down."),
)
TEXT_NAMES = (
    (r"^token_embedding\.", r"token."),
    (r"^positional_embedding$", r"position"),
    (r"^ln_final\.", r"norm."),
    (r"^text_projection$", r"head.weight"),
    (r"^transformer\.resblocks\.", r"blocks."),
    (r"\.ln_1\.", r".mixer.branch.norm."),
    (r"\.attn\.in_proj_", r".mixer.branch.inner.qkv."),
    (r"\.attn\.out_proj\.", r".mixer.branch.inner.out."),
    (r"\.ln_2\.", r".ffn.branch.norm."),
    (r"\.mlp\.c_fc\.", r".ffn.branch.inner.up."),
    (r"\.mlp\.c_proj\.", r".ffn.branch.inner.down."),
)


def _rename(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _image_from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {_rename(name, IMAGE_NAMES): value for name, value in state.items()}
    return {
        name: value.flatten()
        if name.endswith("scale") or name == "class_token"
        else value[0]
        if name == "position"
        else value
        for name, value in named.items()
    }


def _text_from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {_rename(name, TEXT_NAMES): value for name, value in state.items()}
    return {name: value.T if name == "head.weight" else value for name, value in named.items()}


def _clip_from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    image = {k.removeprefix("visual.trunk."): v for k, v in state.items() if k.startswith("visual.trunk.")}
    text = {k.removeprefix("text."): v for k, v in state.items() if k.startswith("text.")}
    assert len(image) + len(text) + 1 == len(state)
    ours = {f"image.{name}": value for name, value in _image_from_timm(image).items()}
    ours |= {f"text.{name}": value for name, value in _text_from_open_clip(text).items()}
    return ours | {"logit_scale": state["logit_scale"]}


@pytest.fixture
def image_from_timm() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Maps a state dict of a timm image tower to ours; a strict load proves that the map is total."""
    return _image_from_timm


@pytest.fixture
def text_from_open_clip() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Maps a state dict of an open_clip text tower to ours."""
    return _text_from_open_clip


@pytest.fixture
def clip_from_open_clip() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Maps a state dict of an open_clip model with a timm image tower to ours."""
    return _clip_from_open_clip


@torch.no_grad()
def _scramble(model: nn.Module, *, seed: int = 0) -> nn.Module:
    rng = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=rng))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.3, 0.3)
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.running_mean, -0.3, 0.3)
            uniform(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            uniform(module.bias, -0.1, 0.1)
    for name, parameter in model.named_parameters():
        if name.endswith(("scale", "gamma")) and parameter.ndim:
            uniform(parameter, -1.0, 1.0)
    return model.eval()


@pytest.fixture
def scramble() -> Callable[..., nn.Module]:
    """Randomises, in place, what a new model leaves at 0, 1 or 1e-5: BatchNorm statistics, affines, layer scales.

    Returns the model in eval mode.
    """
    return _scramble


def _narrow(row: Variant) -> Variant:
    """A variant's twin with every kind of its blocks, two in most stages, and few channels."""
    image, text = row.model.image, row.model.text
    if isinstance(image, FastViTConfig):
        px, stages = 128, len(image.widths)
        widths = tuple(8 << index for index in range(stages))
        image = dataclasses.replace(image, widths=widths, depths=(2, *[1] * (stages - 2), 2), head_channels=8)
    else:
        px = 4 * image.patch_px
        image = dataclasses.replace(image, width=32, heads=2, layers=2, image_px=px)
    text = dataclasses.replace(text, vocab_size=64, context_length=8, width=32, heads=2, layers=2)
    model = dataclasses.replace(row.model, image=image, text=text, embed_dim=24)
    return dataclasses.replace(row, model=model, image_px=px)


NARROW = {(narrow.model, narrow.image_px): narrow for narrow in map(_narrow, reversed(VARIANTS.values()))}


@pytest.fixture(params=NARROW.values(), ids=lambda row: row.name)
def narrow(request: pytest.FixtureRequest) -> Variant:
    """Every variant, one after the other, as a twin of few channels with every kind of its blocks.

    Variants that differ in widths and depths alone are one.
    """
    return request.param


def _batch(row: Variant, size: int) -> tuple[Tensor, Tensor]:
    """Random pictures and texts, the texts of many lengths."""
    text = row.model.text
    tokens_BL = torch.randint(1, text.vocab_size - 2, (size, text.context_length))
    tokens_BL[:, 0] = text.vocab_size - 2
    for index, tokens_L in enumerate(tokens_BL):
        end = 2 + index % (text.context_length - 2)
        tokens_L[end] = text.vocab_size - 1
        tokens_L[end + 1 :] = 0
    return torch.randn(size, 3, row.image_px, row.image_px), tokens_BL


@pytest.fixture
def batch() -> Callable[[Variant, int], tuple[Tensor, Tensor]]:
    """Random pictures [B, 3, H, W] and token ids [B, L] for a variant."""
    return _batch


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """Largest difference over the largest value of the second tensor."""
    return lambda ours, reference: ((ours - reference).abs().max() / reference.abs().max()).item()


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
