"""Every variant in full size, from open_clip to us and back, with nothing left at its starting value.

open_clip has MobileCLIP-S1, -S2, -B and MobileCLIP2-S0, -S2, -B, -S3, -S4, -L-14, and so the towers of
MobileCLIP-B(LT), -S3, -S4 and -L-14, which are the same. It lacks MobileCLIP-S0, whose image tower is compared with
timm's and whose text tower with the one written out below, and the scaled MCi2, whose towers are compared with timm's
and open_clip's of those sizes.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.checkpoint.conftest import fill
from torch import Tensor

from pocketclip.checkpoint import CheckpointConfig, Loaded, convert, load, save, variant_config
from pocketclip.checkpoint.foreign import write_foreign
from pocketclip.checkpoint.foreign_keys import to_theirs
from pocketclip.checkpoint.loaded import assemble
from pocketclip.data.tokenize import Tokenizer
from pocketclip.models import VARIANTS, Clip

pytestmark = [pytest.mark.slow, pytest.mark.reference]

# Ours -> open_clip's model of the same towers.
OPEN_CLIP = {
    "mobileclip_s1": "MobileCLIP-S1",
    "mobileclip2_s0": "MobileCLIP2-S0",
    "mobileclip2_s2": "MobileCLIP2-S2",
    "mobileclip2_b": "MobileCLIP2-B",
    "mobileclip2_s3": "MobileCLIP2-S3",
    "mobileclip2_s4": "MobileCLIP2-S4",
    "mobileclip2_l_14": "MobileCLIP2-L-14",
}
TWINS = {
    "mobileclip_s2": "mobileclip2_s2",
    "mobileclip_b": "mobileclip2_b",
    "mobileclip_blt": "mobileclip2_b",
    "mobileclip_s3": "mobileclip2_s3",
    "mobileclip_s4": "mobileclip2_s4",
    "mobileclip_l_14": "mobileclip2_l_14",
}


APPLE = ("mobileclip_s1", "mobileclip2_s2", "mobileclip2_b")  # published in its v1 layout, read by open_clip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Emptied at once and never waited for: the largest checkpoints are of 1.8 GB."""
    monkeypatch.setattr(os, "fsync", lambda number: None)
    yield tmp_path
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.unlink()
    gc.collect()


def theirs(name: str) -> Any:
    """A model of open_clip without the minutes that its starting values take."""
    open_clip = pytest.importorskip("open_clip")
    with torch.device("meta"):
        model = open_clip.create_model(name, device="meta")
    model.to_empty(device="cpu")
    if model.text.attn_mask is not None:
        model.text.attn_mask = model.text.build_causal_mask()
    return fill(model)


def wipe(model: Any) -> None:
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()


def inputs(loaded: Loaded) -> tuple[Tensor, Tensor]:
    size = loaded.config.preprocess.size
    image_BCHW = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    return image_BCHW, loaded.tokenize(["a photo of a dog", "x " * 99])


@torch.inference_mode()
def features(model: Any, loaded: Loaded) -> tuple[Tensor, Tensor]:
    image_BCHW, tokens_BL = inputs(loaded)
    return model.encode_image(image_BCHW), model.encode_text(tokens_BL)


def assert_equal(found: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() / other.abs().max() < 1e-5


@pytest.mark.parametrize("name", OPEN_CLIP)
def test_equal_to_open_clip_both_ways(name: str, folder: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    reference = theirs(OPEN_CLIP[name])
    torch.save(reference.state_dict(), folder / "theirs.pt")
    read = convert(folder / "theirs.pt", folder / "ours.safetensors", variant=name)
    (folder / "theirs.pt").unlink()
    ours = load(folder / "ours.safetensors")
    assert (ours.digest, read.layout, read.variant) == (read.digest, "open_clip", name)
    expected = features(reference, ours)
    assert_equal(features(ours.model, ours), expected)

    convert(folder / "ours.safetensors", folder / "back.safetensors", to="open_clip")
    wipe(reference)
    open_clip.load_checkpoint(reference, str(folder / "back.safetensors"), strict=True)
    assert_equal(features(reference, ours), expected)

    if name in APPLE:
        ours.model.image.head.bias.data.zero_()  # Apple's first layout has none
        write_foreign(ours, folder / "apple.pt", layout="apple-v1")
        again = load(folder / "apple.pt", variant=name)
        for key, value in ours.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[key], value), key
        wipe(reference)
        open_clip.load_checkpoint(reference, str(folder / "apple.pt"), strict=True)
        assert_equal(features(reference, ours), features(ours.model, ours))


@pytest.mark.parametrize(("name", "twin"), TWINS.items())
def test_twins_are_equal_but_for_their_weights(name: str, twin: str) -> None:
    assert variant_config(name) == variant_config(twin)


def test_every_published_variant_is_compared() -> None:
    published = {row for row in VARIANTS if row.startswith("mobileclip")}
    assert published == {*OPEN_CLIP, *TWINS, "mobileclip_s0"}


def test_the_file_makes_a_model_by_open_clips_own_functions(folder: Path) -> None:
    """`create_model_and_transforms` as `pocketclip convert` prints it, of a folder and of a file."""
    open_clip = pytest.importorskip("open_clip")
    made = variant_config("mobileclip2_s0")
    ours = assemble(fresh(made), config=made, tokenizer=Tokenizer(made.tokenizer))
    save(folder / "ours.safetensors", ours.model, config=made, tokenizer=ours.tokenizer)
    expected = features(ours.model, ours)
    picture = Image.effect_noise((300, 200), 90).convert("RGB")
    for out in (folder / "hub", folder / "file.safetensors"):
        usage = convert(folder / "ours.safetensors", out, to="open_clip").usage
        assert usage is not None
        model, _, transform = eval(usage, {"open_clip": open_clip})  # noqa: S307
        assert_equal(features(model.eval(), ours), expected)
        torch.testing.assert_close(transform(picture), ours.preprocess(picture), rtol=0, atol=1e-6)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder / 'hub'}")
    texts = ["a photo of a dog", "x " * 99]
    assert torch.equal(tokenize(texts), ours.tokenize(texts))
    assert load(folder / "hub").config.preprocess == made.preprocess


def fresh(config: CheckpointConfig) -> dict[str, Tensor]:
    """Random tensors of a model, under our names."""
    with torch.device("meta"):
        model = Clip(config.model)
    return fill(model.to_empty(device="cpu")).state_dict()


def test_the_first_s0_equals_timm_and_its_text_tower_written_out(folder: Path) -> None:
    """Image: timm's tower, through Apple's names and timm's own reading of them. Text: `hybrid_text` below."""
    timm = pytest.importorskip("timm")
    made = variant_config("mobileclip_s0")
    ours = assemble(fresh(made), config=made, tokenizer=Tokenizer(made.tokenizer))
    ours.model.image.head.bias.data.zero_()
    write_foreign(ours, folder / "mobileclip_s0.pt", layout="apple-v1")
    read = convert(folder / "mobileclip_s0.pt", folder / "ours.safetensors")
    assert (read.layout, read.variant) == ("apple-v1", "mobileclip_s0")
    again = load(folder / "ours.safetensors")
    expected = features(again.model, again)

    apple = torch.load(folder / "mobileclip_s0.pt", weights_only=True)
    image_BCHW, tokens_BL = inputs(again)
    tower = timm.create_model("fastvit_mci0", num_classes=512).eval()
    tower.load_state_dict(timm.models.fastvit.checkpoint_filter_fn(dict(apple), tower), strict=True)
    with torch.inference_mode():
        assert_equal([tower(image_BCHW), hybrid_text(apple, tokens_BL)], expected)

    usage = convert(folder / "ours.safetensors", folder / "tower.safetensors", to="timm").usage
    assert usage is not None
    tower = eval(usage, {"timm": timm}).eval()  # noqa: S307
    with torch.inference_mode():
        assert_equal([tower(image_BCHW)], expected[:1])
    with pytest.raises(ValueError, match="open_clip has no hybrid text tower"):
        convert(folder / "ours.safetensors", folder / "hub", to="open_clip")


def test_the_scaled_mci2_equals_timms_and_open_clips_towers_of_its_sizes(folder: Path) -> None:
    timm = pytest.importorskip("timm")
    transformer = pytest.importorskip("open_clip.transformer")
    model = VARIANTS["mci2_scaled"].model
    with torch.device("meta"):
        image = timm.create_model(
            "fastvit_mci2",
            layers=model.image.depths,
            embed_dims=model.image.widths,
            num_classes=model.embed_dim,
        )
        text = transformer.TextTransformer(
            width=768, heads=12, layers=12, output_dim=model.embed_dim, no_causal_mask=True
        )
    image, text = (fill(tower.to_empty(device="cpu"), seed=seed) for seed, tower in enumerate((image, text)))
    theirs = {f"visual.trunk.{name}": value for name, value in image.state_dict().items()}
    theirs |= {f"text.{name}": value for name, value in text.state_dict().items()}
    theirs["logit_scale"] = torch.tensor(4.0)
    torch.save({"epoch": 3, "state_dict": theirs}, folder / "epoch_3.pt")
    assert convert(folder / "epoch_3.pt", folder / "ours.safetensors").variant == "mci2_scaled"
    ours = load(folder / "ours.safetensors")
    image_BCHW, tokens_BL = inputs(ours)
    with torch.inference_mode():
        assert_equal(features(ours.model, ours), [image(image_BCHW), text(tokens_BL)])
    back = to_theirs(ours.model.state_dict(), config=ours.config.model, layout="open_clip")
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())


def hybrid_text(state: Mapping[str, Tensor], tokens_BL: Tensor) -> Tensor:
    """MobileCLIP-S0's text tower from its paper (arXiv 2311.17049, section 3.2), of Apple's names, every one used."""
    used: set[str] = set()

    def get(name: str) -> Tensor:
        used.add(f"text_encoder.{name}")
        return state[f"text_encoder.{name}"]

    def norm(x_BCL: Tensor, name: str) -> Tensor:
        used.add(f"text_encoder.{name}.num_batches_tracked")
        names = ("running_mean", "running_var", "weight", "bias")
        mean_C1, variance_C1, weight_C1, bias_C1 = (get(f"{name}.{part}")[:, None] for part in names)
        return (x_BCL - mean_C1) / (variance_C1 + 1e-5).sqrt() * weight_C1 + bias_C1

    def convolve(x_BCL: Tensor, name: str) -> Tensor:
        kernel_C1K = get(f"{name}.weight")[:, :, 0]
        out_BCL = F.conv1d(x_BCL, kernel_C1K, padding=kernel_C1K.shape[-1] // 2, groups=len(kernel_C1K))
        return norm(out_BCL, name.replace("conv.conv", "conv.bn").replace("rbr_conv.0.conv", "rbr_conv.0.bn"))

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, get(f"{name}.weight").flatten(1), get(f"{name}.bias"))

    def layer_norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], get(f"{name}.weight"), get(f"{name}.bias"))

    def mix(x_BLC: Tensor, block: str) -> Tensor:
        x_BCL = x_BLC.transpose(1, 2)
        mixed_BCL = convolve(x_BCL, f"{block}.token_mixer.mixer.rbr_conv.0.conv")
        mixed_BCL = mixed_BCL + norm(x_BCL, f"{block}.token_mixer.mixer.rbr_skip")
        change_BCL = mixed_BCL - norm(x_BCL, f"{block}.token_mixer.norm.rbr_skip")
        x_BCL = x_BCL + get(f"{block}.token_mixer.layer_scale")[:, :, 0] * change_BCL
        hidden_BLC = linear(
            convolve(x_BCL, f"{block}.convffn.conv.conv").transpose(1, 2), f"{block}.convffn.fc1"
        )
        out_BCL = linear(F.gelu(hidden_BLC), f"{block}.convffn.fc2").transpose(1, 2)
        return (x_BCL + get(f"{block}.layer_scale")[:, :, 0] * out_BCL).transpose(1, 2)

    def attend(x_BLC: Tensor, block: str) -> Tensor:
        B, L, C = x_BLC.shape
        qkv_BLC = linear(layer_norm(x_BLC, f"{block}.pre_norm_mha.0"), f"{block}.pre_norm_mha.1.qkv_proj")
        q, k, v = (part.reshape(B, L, 8, C // 8).transpose(1, 2) for part in qkv_BLC.chunk(3, dim=-1))
        weights = (q @ k.transpose(-1, -2) * (C // 8) ** -0.5).softmax(-1)
        mixed_BLC = (weights @ v).transpose(1, 2).reshape(B, L, C)
        x_BLC = x_BLC + linear(mixed_BLC, f"{block}.pre_norm_mha.1.out_proj")
        hidden_BLC = linear(layer_norm(x_BLC, f"{block}.pre_norm_ffn.0"), f"{block}.pre_norm_ffn.1")
        return x_BLC + linear(F.gelu(hidden_BLC), f"{block}.pre_norm_ffn.4")

    x_BLC = get("embedding_layer.weight")[tokens_BL] + get("positional_embedding.pos_embed.pos_embed")[0, 0]
    for number, layer in enumerate((mix, attend, attend, attend, attend, mix)):
        x_BLC = layer(x_BLC, f"transformer.{number}")
    end_BC = layer_norm(x_BLC, "final_layer_norm")[torch.arange(len(x_BLC)), tokens_BL.argmax(-1)]
    embed_BD = end_BC @ get("projection_layer")
    assert used == {name for name in state if name.startswith("text_encoder.")}
    return embed_BD
