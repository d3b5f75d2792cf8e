"""Which model a foreign file holds, and how it is written back; the tiny variants stand for the large ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.checkpoint.conftest import fill, randomised
from torch import Tensor

import pocketclip
from pocketclip.checkpoint import Loaded, create, load
from pocketclip.checkpoint.foreign import read_foreign, write_foreign
from pocketclip.checkpoint.foreign_keys import Layout, is_counter, their_tensors, to_theirs
from pocketclip.checkpoint.loaded import assemble, tokenizer_of, variant_config
from pocketclip.data.publish import PublishError
from pocketclip.models import Clip, fold


@pytest.fixture(scope="session")
def ours() -> Loaded:
    """A tiny model with nothing at its starting value but the bias that Apple's v1 layout lacks. Do not change it."""
    torch.manual_seed(0)
    made = create("pocketclip_tiny")
    fill(made.model).image.head.bias.data.zero_()
    return made


@pytest.fixture
def theirs(ours: Loaded) -> dict[str, Tensor]:
    """`ours` as open_clip has it."""
    return to_theirs(ours.model.state_dict(), config=ours.config.model, layout="open_clip")


def written(path: Path, tensors: Mapping[str, object]) -> Path:
    torch.save(dict(tensors), path)
    return path


def same_weights(found: Loaded, expected: Loaded) -> bool:
    one, other = found.model.state_dict(), expected.model.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in other)


def refused(path: Path, *, saying: str, **asked: Any) -> str:
    with pytest.raises(ValueError, match=saying) as caught:
        load(path, **asked)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    return sentence


# What is understood


@pytest.mark.parametrize("layout", ["pocketclip", "open_clip", "apple-v1"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_every_layout_is_loaded_by_its_names_alone(ours, tmp_path, layout: Layout, suffix):
    tensors = to_theirs(ours.model.state_dict(), config=ours.config.model, layout=layout)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        written(path, tensors)
    else:
        path.write_bytes(safetensors.torch.save(tensors))
    loaded = load(path)
    assert same_weights(loaded, ours)
    assert not loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert replace(loaded.config, run={}) == ours.config
    origin = loaded.config.run["converted"]
    assert (origin["file"], origin["layout"], origin["variant"]) == (path.name, layout, "pocketclip_tiny")
    with torch.inference_mode():
        image_BCHW, tokens_BL = torch.rand(2, 3, 48, 48), ours.tokenize(["a dog", "a cat"])
        found, expected = loaded.model(image_BCHW, tokens_BL), ours.model(image_BCHW, tokens_BL)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_loaded_model_is_not_the_file(ours, theirs, tmp_path):
    """Not a view of it: the file may be overwritten while the model is in use."""
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        if path.suffix == ".pt":
            written(path, theirs)
        else:
            path.write_bytes(safetensors.torch.save(theirs))
        loaded = load(path)
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        assert same_weights(loaded, ours)


def test_a_training_checkpoint_of_open_clip_is_loaded_and_says_what_was_taken_off(ours, theirs, tmp_path):
    optimizer = torch.optim.AdamW(ours.model.parameters())
    content = {
        "epoch": 32,
        "name": "2026_11_22-model_x-lr_0.001",
        "state_dict": {f"module.{name}": value for name, value in theirs.items()},
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 7},
    }
    loaded = load(written(tmp_path / "epoch_32.pt", content))
    assert same_weights(loaded, ours)
    assert loaded.config.run["converted"]["notes"] == [
        "of a training checkpoint its entry 'state_dict' was taken",
        "taken off the names: module.",
    ]


def test_names_of_open_clips_older_class_and_a_logit_scale_of_one_number(ours, theirs, tmp_path):
    older = {name.removeprefix("text."): value for name, value in theirs.items()}
    older["logit_scale"] = older["logit_scale"].reshape(1)
    assert same_weights(load(written(tmp_path / "a.pt", older)), ours)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32_and_that_is_said(ours, theirs, tmp_path, dtype):
    other = {name: value.to(dtype) if value.is_floating_point() else value for name, value in theirs.items()}
    loaded = load(written(tmp_path / "a.pt", other))
    assert {value.dtype for value in loaded.model.state_dict().values()} == {torch.float32, torch.int64}
    assert loaded.config.run["converted"]["notes"] == [f"{str(dtype).removeprefix('torch.')} became float32"]
    for name, value in loaded.model.state_dict().items():
        torch.testing.assert_close(value, ours.model.state_dict()[name], rtol=1e-2, atol=1e-2, msg=name)


def test_counters_of_batchnorm_may_be_missing(ours, theirs, tmp_path):
    loaded = load(written(tmp_path / "a.pt", {k: v for k, v in theirs.items() if not is_counter(k)}))
    assert loaded.config.run["converted"]["variant"] == "pocketclip_tiny"
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, ours.model.state_dict()[name]) or (is_counter(name) and value == 0)


@pytest.mark.parametrize(("image_px", "context_length"), [(48, 20), (64, 26), (96, 40)])
def test_other_lengths_of_position_tables_become_the_configurations(tmp_path, image_px, context_length):
    config = variant_config("pocketclip_tiny_vit")
    model = replace(
        config.model,
        image=replace(config.model.image, image_px=image_px),
        text=replace(config.model.text, context_length=context_length),
    )
    torch.manual_seed(1)
    state = Clip(model).state_dict()
    path = written(tmp_path / "a.pt", to_theirs(state, config=model, layout="pocketclip"))
    loaded = load(path, variant="pocketclip_tiny_vit")
    assert loaded.config.model == model
    assert loaded.config.preprocess.size == image_px
    assert loaded.config.tokenizer == tokenizer_of(model)
    assert loaded.tokenize("a dog").shape == (1, context_length)
    again, _, transform = pocketclip.create_model_and_transforms("pocketclip_tiny_vit", pretrained=path)
    image_BCHW = transform(Image.new("RGB", (70, 50)))[None]
    assert again.encode_image(image_BCHW).shape == (1, 128)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "name", "variant", "notes"),
    [
        ("", "mobileclip_s2.pt", "mobileclip_s2", []),
        ("", "MobileCLIP2-S2_epoch_7.pt", "mobileclip2_s2", []),
        ("models--apple--MobileCLIP-S2/snapshots/4d7a", "weights.pt", "mobileclip_s2", []),
        ("", "weights.pt", "mobileclip2_s2", ["taken for mobileclip2_s2; mobileclip_s2 would be the same"]),
        (
            "",
            "mobileclip2_s4.pt",
            "mobileclip2_s2",
            ["the file's name says mobileclip2_s4, its tensors are those of"],
        ),
    ],
)
def test_of_equal_variants_the_name_of_the_file_decides(tmp_path, monkeypatch, folder, name, variant, notes):
    monkeypatch.chdir(tmp_path)
    sparse = sparse_state("mobileclip2_s2")
    Path(folder).mkdir(parents=True, exist_ok=True)
    foreign = read_foreign(written(Path(folder) / name, sparse))
    assert foreign.variant == variant
    assert len(foreign.notes) == len(notes)
    assert all(found.startswith(note) for found, note in zip(foreign.notes, notes, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("MobileCLIP-B-LT.pt", "mobileclip_b"),
        ("MobileCLIP-B(LT).pt", "mobileclip2_b"),
        ("mobileclip_blt.pt", "mobileclip_blt"),
    ],
)
def test_what_is_asked_for_counts_more_than_the_name_of_the_file(tmp_path, file, name):
    path = written(tmp_path / file, sparse_state("mobileclip2_b"))
    assert read_foreign(path).variant == "mobileclip_blt"
    assert read_foreign(path, variant=name).variant == name


def sparse_state(name: str) -> dict[str, Tensor]:
    """The tensors of a large variant, each a single number seen many times: files of them are small."""
    config = variant_config(name).model
    named = their_tensors(config, "open_clip")
    return {key: torch.ones((), dtype=value.dtype).expand(value.shape) for key, value in named.items()}


# What is refused


def test_missing_surplus_and_misshaped_tensors_are_listed(theirs, tmp_path):
    del theirs["visual.trunk.stem.0.conv_kxk.0.conv.weight"]
    theirs["visual.trunk.stem.9.extra"] = torch.zeros(2)
    theirs["text.ln_final.weight"] = torch.zeros(5)
    sentence = refused(written(tmp_path / "a.pt", theirs), saying="is not a whole pocketclip_tiny")
    for problem in (
        "missing visual.trunk.stem.0.conv_kxk.0.conv.weight",
        "surplus visual.trunk.stem.9.extra",
        "text.ln_final.weight is [5], expected [128]",
        "copy or download it again",
    ):
        assert problem in sentence
    sentence = refused(tmp_path / "a.pt", saying="holds no pocketclip_tiny: ", variant="PocketCLIP-Tiny")
    assert "surplus visual.trunk.stem.9.extra" in sentence


def test_another_variants_weights_are_told_with_their_own_name(theirs, tmp_path):
    path = written(tmp_path / "a.pt", theirs)
    sentence = refused(path, saying="holds no mobileclip2_s0", variant="MobileCLIP2-S0")
    assert sentence.endswith("; it fits pocketclip_tiny, so name that one")
    with pytest.raises(ValueError, match=r"holds no mobileclip2_s0: .* it fits pocketclip_tiny"):
        pocketclip.create_model_and_transforms("MobileCLIP2-S0", pretrained=path)
    refused(
        written(path, sparse_state("mobileclip2_s2")),
        saying="it fits mobileclip_s2 or mobileclip2_s2",
        variant="mobileclip_s1",
    )
    with pytest.raises(ValueError, match="Unknown variant 'S0': "):
        load(path, variant="S0")


def test_a_folded_model_is_told(ours, theirs, tmp_path):
    saying = (
        r"is folded for inference \(.*give the checkpoint from before folding .*; pocketclip folds it itself"
    )
    folded = {name.replace("conv_kxk.0.conv", "reparam_conv"): value for name, value in theirs.items()}
    sentence = refused(written(tmp_path / "timm.pt", folded), saying=saying)
    assert "visual.trunk.stem.0.reparam_conv.weight" in sentence
    apple = {
        "image_encoder.model.network.1.proj.0.lkb_reparam.weight": torch.zeros(1),
        "text_encoder.x": torch.zeros(1),
    }
    refused(written(tmp_path / "apple.pt", apple), saying=saying)
    refused(written(tmp_path / "ours.pt", fold(ours.model).state_dict()), saying=saying)
    vit = randomised("pocketclip_tiny_vit")
    refused(written(tmp_path / "vit.pt", fold(vit.model).state_dict()), saying=saying)
    assert same_weights(load(written(tmp_path / "whole.pt", vit.model.state_dict())), vit)


@pytest.mark.reference
def test_a_model_that_timm_has_folded_is_told(ours, tmp_path):
    timm = pytest.importorskip("timm")
    tower = timm.create_model(
        "fastvit_mci0", layers=(1, 1, 1, 1), embed_dims=(32, 64, 128, 256), num_classes=8
    )
    folded = timm.utils.reparameterize_model(tower.eval())
    state = {f"visual.trunk.{name}": value for name, value in folded.state_dict().items()}
    refused(written(tmp_path / "a.pt", state | {"text.x": torch.zeros(1)}), saying="is folded for inference")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_told(theirs, tmp_path, value):
    theirs["text.ln_final.bias"] = theirs["text.ln_final.bias"].clone()
    theirs["text.ln_final.bias"][3] = value
    refused(
        written(tmp_path / "a.pt", theirs),
        saying=r"not finite in 1 tensors \(text\.norm\.bias\): .* take an earlier",
    )


@pytest.mark.parametrize(
    ("tensors", "saying"),
    [
        (
            {"conv1.weight": 0, "layer1.0.bn1.bias": 0, "fc.bias": 0},
            "is not a pocketclip checkpoint, and holds no model of this family .*conv1.weight, layer1",
        ),
        (
            {"visual.conv1.weight": 0, "visual.transformer.x": 0, "transformer.y": 0},
            "holds no model of this family",
        ),
        ({"text_model.x": 0, "vision_model.y": 0, "logit_scale": 0}, "holds no model of this family"),
        (
            {"stem.0.x": 0, "stages.0.y": 0, "head.fc.weight": 0},
            "holds an image tower alone, and a model has two",
        ),
        ({"visual.trunk.stem.0.x": 0, "visual.trunk.stages.0.y": 0}, "holds an image tower alone"),
        ({"patch_embed.x": 0, "blocks.0.attn.qkv.weight": 0, "norm.weight": 0}, "holds an image tower alone"),
        ({"token_embedding.weight": 0, "text_projection": 0}, "holds a text tower alone"),
        ({"text.token_embedding.weight": 0, "text.ln_final.weight": 0}, "holds a text tower alone"),
        (
            {"visual.trunk.a": 0, "text.b": 0},
            "fits no variant, .* least badly: missing .*; and .* more; give weights of",
        ),
    ],
)
def test_a_model_of_another_family_is_told(tmp_path, tensors, saying):
    refused(written(tmp_path / "a.pt", {name: torch.zeros(1) for name in tensors}), saying=saying)


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><title>403</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "is a git-lfs pointer"),
        (b"Not Found", "is a text file"),
    ],
)
def test_what_is_no_weights_at_all_is_told(tmp_path, content, saying):
    (tmp_path / "a.pt").write_bytes(content)
    refused(tmp_path / "a.pt", saying=saying)


def test_loading_leaves_torchs_random_numbers_alone(theirs, tmp_path):
    path = written(tmp_path / "a.pt", theirs)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(path)
    assert torch.equal(torch.rand(3), expected)


# What is written


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize("layout", ["timm", "apple-v1"])
def test_the_same_model_gives_the_same_bytes(ours, tmp_path, layout: Layout, suffix):
    write_foreign(ours, tmp_path / f"one{suffix}", layout=layout)
    again = replace(ours, model=Clip(ours.config.model).eval())
    again.model.load_state_dict(ours.model.state_dict())
    again.model.to(memory_format=torch.channels_last)
    write_foreign(again, tmp_path / "deep" / f"other{suffix}", layout=layout)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / "deep" / f"other{suffix}").read_bytes()


def test_a_view_of_more_does_not_bring_the_rest_along(ours, tmp_path):
    write_foreign(ours, tmp_path / "one.pt", layout="apple-v1")
    large = {name: torch.stack([value, value, value])[1] for name, value in ours.model.state_dict().items()}
    views = assemble(large, config=ours.config, tokenizer=ours.tokenizer)
    write_foreign(views, tmp_path / "two.pt", layout="apple-v1")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_what_a_layout_cannot_hold_is_not_written(ours, tmp_path):
    vit = randomised("pocketclip_tiny_vit")
    for loaded, layout, saying in (
        (ours, "open_clip", "open_clip makes image towers by timm's names, and this one has none"),
        (vit, "apple-v1", r"has no place for image\.head\.bias, and it is not zero"),
        (ours.folded(), "apple-v1", "the model is folded"),
        (replace(ours, model=vit.model), "timm", "or not the config's own: missing image"),
    ):
        with pytest.raises(ValueError, match=f"a.pt was not written: .*{saying}"):
            write_foreign(loaded, tmp_path / "a.pt", layout=layout)
    with pytest.raises(
        ValueError, match=r"folder was not written: the apple-v1 layout is one file, OUT\.pt or"
    ):
        write_foreign(ours, tmp_path / "folder", layout="apple-v1")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(ours, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    path.with_name(".a.pt.partial").symlink_to("/dev/full")
    with pytest.raises(PublishError, match=r"disk full while writing .*a\.pt"):
        write_foreign(ours, path, layout="apple-v1")
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
