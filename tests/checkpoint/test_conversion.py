"""One checkpoint from another, from Python and from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.checkpoint.conftest import fill

import pocketclip
from pocketclip.checkpoint import Loaded, convert, create, load, save
from pocketclip.checkpoint.foreign import write_foreign


@pytest.fixture(scope="session")
def small() -> Loaded:
    """Nothing at its starting value but the bias that Apple's v1 layout lacks. Do not change it."""
    torch.manual_seed(0)
    made = create("pocketclip_tiny")
    fill(made.model).image.head.bias.data.zero_()
    return load_again(made)


def load_again(made: Loaded) -> Loaded:
    from pocketclip.checkpoint.loaded import as_loaded

    return as_loaded(made.model, config=made.config, tokenizer=made.tokenizer)


@pytest.fixture
def own(small: Loaded, tmp_path: Path) -> Path:
    """A checkpoint of `small`."""
    path = tmp_path / "own.safetensors"
    save(path, small.model, config=small.config, tokenizer=small.tokenizer)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_there_and_back_through_another_layout_is_the_same_model(small, own, tmp_path):
    there = convert(own, tmp_path / "apple.pt", to="apple-v1")
    assert (there.layout, there.to, there.variant) == ("pocketclip", "apple-v1", "pocketclip_tiny")
    assert (there.digest, there.num_tensors) == (small.digest, len(small.model.state_dict()))
    back = convert(tmp_path / "apple.pt", tmp_path / "back.safetensors", variant="PocketCLIP-Tiny")
    assert (back.layout, back.to, back.file) == ("apple-v1", "pocketclip", "apple.pt")
    assert (back.digest, back.num_tensors) == (small.digest, there.num_tensors - 1)  # the bias
    assert back.num_image_parameters == sum(value.numel() for value in small.model.image.parameters())
    assert back.num_text_parameters == sum(value.numel() for value in small.model.text.parameters())
    assert back.usage == f'pocketclip.load("{tmp_path / "back.safetensors"}")'
    assert load(back.out).digest == small.digest
    again = convert(tmp_path / "apple.pt", tmp_path / "again.safetensors")
    assert Path(again.out).read_bytes() == Path(back.out).read_bytes()


def test_an_own_checkpoint_may_be_copied(small, own, tmp_path):
    assert convert(own, tmp_path / "copy.safetensors").digest == small.digest
    assert (tmp_path / "copy.safetensors").read_bytes() == own.read_bytes()


def test_the_image_tower_alone(small, own, tmp_path):
    done = convert(own, tmp_path / "tower.safetensors", to="timm")
    tensors = safetensors.torch.load_file(done.out)
    assert done.usage is None  # timm has no name for this tower
    assert len(tensors) == len(small.model.image.state_dict())
    with pytest.raises(ValueError, match="holds an image tower alone"):
        convert(done.out, tmp_path / "back.safetensors")


def test_the_last_weights_or_their_average(small, tmp_path):
    write_foreign(small, tmp_path / "weights.pt", layout="apple-v1")
    last = torch.load(tmp_path / "weights.pt")
    average = {name: value * 2 if value.is_floating_point() else value for name, value in last.items()}
    torch.save({"model": last, "model_ema": average}, tmp_path / "run.pt")
    averaged = convert(tmp_path / "run.pt", tmp_path / "a.safetensors")
    assert averaged.digest != small.digest
    assert averaged.notes == ("of a training checkpoint its entry 'model_ema' was taken, the moving average",)
    assert (
        convert(tmp_path / "run.pt", tmp_path / "b.safetensors", moving_average=False).digest == small.digest
    )


def test_what_cannot_be_done_is_told_and_nothing_is_written(own, tmp_path):
    before = files(tmp_path)
    for source, asked, error, saying in (
        (own, {"variant": "pocketclip_tiny_vit"}, ValueError, "does not hold a pocketclip_tiny_vit"),
        (own, {"variant": "tiny"}, ValueError, "Unknown variant 'tiny'"),
        (
            own,
            {"to": "onnx"},
            ValueError,
            "'onnx' is no layout: it is one of pocketclip, open_clip, timm, apple-v1",
        ),
        (
            own,
            {"to": "open_clip"},
            ValueError,
            "out.pt was not written: open_clip makes image towers by timm's names",
        ),
        (tmp_path / "gone.pt", {}, FileNotFoundError, "gone.pt does not exist: give a checkpoint"),
        ("mobileclip2_s0", {}, FileNotFoundError, "mobileclip2_s0 does not exist"),
    ):
        with pytest.raises(error, match=saying):
            convert(source, tmp_path / "out.pt", **asked)
        assert files(tmp_path) == before


def test_the_source_is_never_written_over(own, tmp_path):
    data = own.read_bytes()
    for source, out in ((own, own), (tmp_path, tmp_path), (own, tmp_path / "." / own.name), (own, tmp_path)):
        with pytest.raises(ValueError, match="is the source itself: choose another output"):
            convert(source, out, to="open_clip")
    (tmp_path / "link.safetensors").symlink_to(own)
    with pytest.raises(ValueError, match="is the source itself"):
        convert(own, tmp_path / "link.safetensors")
    assert own.read_bytes() == data


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    torch.manual_seed(0)
    made = create("mobileclip2_s0")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"me")
    with pytest.raises(FileExistsError, match="photos is a folder with other files in it"):
        write_foreign(made, tmp_path / "photos", layout="open_clip")
    assert files(tmp_path / "photos") == ["me.jpg"]


def test_a_hub_folder_of_open_clip_is_written_and_loaded(tmp_path):
    torch.manual_seed(0)
    made = create("mobileclip2_s0")
    preprocess = replace(made.config.preprocess, size=192, mean=(0.1, 0.2, 0.3))
    write_foreign(
        replace(made, config=replace(made.config, preprocess=preprocess)),
        tmp_path / "hub",
        layout="open_clip",
    )
    assert files(tmp_path / "hub") == ["open_clip_config.json", "open_clip_model.safetensors"]
    for place in (tmp_path / "hub", tmp_path / "hub" / "open_clip_model.safetensors"):
        loaded = load(place, variant="mobileclip2_s0")
        assert loaded.config.preprocess == preprocess
        assert torch.equal(loaded.model.logit_scale, made.model.logit_scale)
    model, _, _ = pocketclip.create_model_and_transforms("MobileCLIP2-S0", pretrained=tmp_path / "hub")
    assert not model.training
    with pytest.raises(
        ValueError, match=r"open_clip_config\.json describes no mobileclip_s1 but mobileclip2_s0"
    ):
        load(tmp_path / "hub", variant="mobileclip_s1")

    # The older name of the weights, a configuration of other towers, and none.
    weights = safetensors.torch.load_file(tmp_path / "hub" / "open_clip_model.safetensors")
    (tmp_path / "hub" / "open_clip_model.safetensors").unlink()
    torch.save(weights, tmp_path / "hub" / "open_clip_pytorch_model.bin")
    assert load(tmp_path / "hub").config.preprocess == preprocess
    config = tmp_path / "hub" / "open_clip_config.json"
    values = json.loads(config.read_text())
    values["model_cfg"]["vision_cfg"]["timm_model_name"] = "fastvit_mci1"
    config.write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=r"open_clip_pytorch_model\.bin is not what open_clip_config\.json says: missing"
    ):
        load(tmp_path / "hub")


# The command line


def test_the_command_says_what_it_understood_and_how_to_load_the_result(cli, own, small, tmp_path):
    ran = cli("convert", own, tmp_path / "apple.pt", "--to", "apple-v1")
    assert ran.code == 0, ran.err
    ran = cli("convert", tmp_path / "apple.pt", tmp_path / "back.safetensors", "--variant", "PocketCLIP-Tiny")
    assert ran.code == 0, ran.err
    for part in (
        "read     apple.pt: pocketclip_tiny, apple-v1 layout, 246 tensors, 0.2 + 1.5 million parameters",
        f"written  {tmp_path / 'back.safetensors'}: pocketclip layout",
        f"digest   {small.digest}",
        f'load it  pocketclip.load("{tmp_path / "back.safetensors"}")',
    ):
        assert part in ran.out


def test_the_command_prints_json(cli, own, small, tmp_path):
    ran = cli("convert", own, tmp_path / "tower.safetensors", "--to", "timm", "--json")
    assert ran.code == 0, ran.err
    values = json.loads(ran.out)
    assert (values["digest"], values["variant"], values["usage"]) == (small.digest, "pocketclip_tiny", None)


def test_the_commands_failures_are_one_sentence(cli, own, tmp_path):
    (tmp_path / "page.pt").write_bytes(b"<!DOCTYPE html>")
    for arguments, saying in (
        ((tmp_path / "page.pt", tmp_path / "out.safetensors"), "page.pt is a web page, not weights"),
        ((own, tmp_path / "out", "--to", "apple-v1"), "the apple-v1 layout is one file"),
        ((own, tmp_path / "hub", "--to", "open_clip"), "open_clip makes image towers by timm's names"),
        ((tmp_path / "gone", tmp_path / "out"), "gone does not exist"),
    ):
        ran = cli("convert", *arguments)
        assert ran.code == 1
        assert saying in ran.sentence()
    assert files(tmp_path) == ["own.safetensors", "page.pt"]
    assert cli("convert", own).code == 2
    help_text = cli("convert", "--help").out
    assert "pocketclip convert mobileclip2_s0.pt s0.safetensors" in help_text
