"""A checkpoint comes back bit for bit and needs nothing else; whatever else is in the file is told in a sentence."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from tests.checkpoint.conftest import other_merges, randomised

from pocketclip.checkpoint import create, load, save, save_state, variant_config
from pocketclip.data.publish import PublishError
from pocketclip.data.tokenize import Tokenizer

TEXTS = ["a red circle", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 🦊", "", "x " * 99]


def tensors_of(loaded):
    return loaded.model.state_dict()


def save_again(path, loaded, **changes):
    save(path, loaded.model, config=replace(loaded.config, **changes), tokenizer=loaded.tokenizer)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["pocketclip_tiny", "pocketclip_tiny_vit", "pocketclip_tiny_teacher"])
def test_a_checkpoint_comes_back_bit_for_bit(name, tmp_path):
    saved = randomised(name)
    run = {"config": {"name": "a run", "lr": 0.1, "betas": [0.9, 0.95], "none": None}, "dropped": []}
    path = tmp_path / "deep" / "a.safetensors"
    save(path, saved.model, config=replace(saved.config, run=run), tokenizer=saved.tokenizer)
    loaded = load(path)
    assert loaded.config == replace(saved.config, run=run)
    assert not loaded.model.training
    assert tensors_of(loaded).keys() == tensors_of(saved).keys()
    for key, value in tensors_of(saved).items():
        assert torch.equal(tensors_of(loaded)[key], value), key
        assert tensors_of(loaded)[key].dtype == value.dtype
    picture = Image.effect_noise((90, 70), 80).convert("RGB")
    image_BCHW = saved.preprocess(picture)[None]
    assert torch.equal(loaded.preprocess(picture)[None], image_BCHW)
    assert torch.equal(loaded.tokenize(TEXTS), saved.tokenize(TEXTS))
    with torch.inference_mode():
        expected = saved.model(image_BCHW.repeat(4, 1, 1, 1), saved.tokenize(TEXTS))
        output = loaded.model(image_BCHW.repeat(4, 1, 1, 1), loaded.tokenize(TEXTS))
    assert all(torch.equal(one, two) for one, two in zip(output, expected, strict=True))


def test_what_preprocesses_and_tokenizes_is_the_checkpoints_own(tiny, tmp_path):
    # Not the variant's: the file alone decides.
    merges = other_merges(tiny.tokenizer.merges, num=tiny.config.tokenizer.num_merges)
    tokenizer = Tokenizer(tiny.config.tokenizer, merges=merges)
    preprocess = replace(tiny.config.preprocess, size=30, mean=(0.1, 0.2, 0.3), interpolation="bicubic")
    path = tmp_path / "own.safetensors"
    save(path, tiny.model, config=replace(tiny.config, preprocess=preprocess), tokenizer=tokenizer)
    loaded = load(path)
    assert loaded.tokenizer.merges == merges
    assert torch.equal(loaded.tokenize(TEXTS), torch.from_numpy(tokenizer(TEXTS)))
    assert not torch.equal(loaded.tokenize(TEXTS), tiny.tokenize(TEXTS))
    picture = Image.effect_noise((90, 70), 80).convert("RGB")
    assert loaded.preprocess(picture).shape == (3, 30, 30)
    np.testing.assert_array_equal(loaded.preprocess(picture).numpy(), preprocess(picture))


def test_the_record_turns_any_picture_and_text_into_what_the_model_takes(tiny):
    size = tiny.config.preprocess.size
    for mode in ("RGB", "L", "RGBA", "P", "CMYK"):
        image_CHW = tiny.preprocess(Image.new(mode, (50, 33)))
        assert image_CHW.shape == (3, size, size)
        assert image_CHW.dtype == torch.float32
    assert tiny.tokenize("one text").shape == (1, tiny.config.tokenizer.context_length)
    tokens_BL = tiny.tokenize(["one", "two"], 5)
    assert tokens_BL.shape == (2, 5)
    assert tokens_BL.dtype == torch.int64


def test_a_folded_record_embeds_the_same(tiny):
    folded = tiny.folded()
    assert (folded.digest, folded.config) == (tiny.digest, tiny.config)
    assert len(tensors_of(folded)) < len(tensors_of(tiny))
    image_BCHW = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(
            folded.model.encode_image(image_BCHW, normalize=True),
            tiny.model.encode_image(image_BCHW, normalize=True),
            atol=1e-4,
            rtol=0,
        )


def test_the_safetensors_library_alone_reads_all_of_it(path, tiny):
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (metadata["format"], metadata["version"]) == ("pocketclip", "1")
    assert metadata.keys() == {"format", "version", "model", "preprocess", "tokenizer", "run"}
    assert json.loads(metadata["preprocess"])["size"] == tiny.config.preprocess.size
    assert json.loads(metadata["model"])["image"]["kind"] == "fastvit"
    assert tensors.pop("tokenizer.merges").tobytes() == tiny.tokenizer.merges
    assert tensors.keys() == {f"model.{name}" for name in tensors_of(tiny)}
    for name, value in tensors_of(tiny).items():
        np.testing.assert_array_equal(tensors[f"model.{name}"], value.numpy())


def test_the_same_model_gives_the_same_bytes_whatever_its_memory_layout(path, tiny, tmp_path):
    again = randomised("pocketclip_tiny")
    again.model.to(memory_format=torch.channels_last)
    save_again(tmp_path / "again.safetensors", again)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_digest_is_of_what_decides_the_embeddings_and_nothing_else(path, tiny, tmp_path):
    digest = load(path).digest
    elsewhere = tmp_path / "else" / "where.bin.safetensors"
    elsewhere.parent.mkdir()
    save_again(elsewhere, tiny, run={"other": "history"})
    assert load(elsewhere).digest == digest
    preprocess = replace(tiny.config.preprocess, mean=(0.5, 0.5, 0.25))
    assert load(save_again(elsewhere, tiny, preprocess=preprocess)).digest != digest
    merges = other_merges(tiny.tokenizer.merges, num=tiny.config.tokenizer.num_merges)
    other = Tokenizer(tiny.config.tokenizer, merges=merges)
    save(elsewhere, tiny.model, config=tiny.config, tokenizer=other)
    assert load(elsewhere).digest != digest


def test_the_digest_changes_with_any_tensor(path, rewrite):
    digest, seen = load(path).digest, set()
    names = list(tensors_of(load(path)))
    for name in [*names[::25], names[-1], "logit_scale", next(n for n in names if n.endswith("running_var"))]:
        for step in (1, -1):  # there and back

            def nudge(tensors, name=name, step=step):
                flat = tensors[f"model.{name}"].view(-1)
                kind = torch.int32 if flat.dtype == torch.float32 else flat.dtype
                flat.view(kind)[len(flat) // 2] += step  # the smallest change there is

            seen.add(load(rewrite(path, tensors=nudge)).digest)
    assert digest in seen
    assert len(seen) > len(names) // 25


def test_loading_leaves_torchs_random_numbers_alone(path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load(path)
    assert torch.equal(torch.rand(3), expected)


def test_a_seed_decides_a_new_model():
    torch.manual_seed(1)
    one = create("pocketclip_tiny").digest
    torch.manual_seed(1)
    assert create("pocketclip_tiny").digest == one
    assert create("pocketclip_tiny").digest != one


@pytest.mark.parametrize("spelling", ["PocketCLIP-Tiny", "pocketclip_tiny", "MobileCLIP2-S0"])
def test_a_name_gives_random_weights_and_says_so(spelling):
    with pytest.warns(UserWarning, match=f"{spelling} has random weights: load a checkpoint") as caught:
        loaded = load(spelling)
    assert caught[0].filename == __file__
    assert loaded.config == variant_config(spelling.lower().replace("-", "_"))
    assert not loaded.model.training


# What is not a checkpoint


def refused(path, *, saying):
    with pytest.raises(ValueError, match=saying) as caught:
        load(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    return sentence


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-5, 1e-3, 0.3, 0.9, 0.999999])
def test_a_cut_file_is_told(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(
        path,
        saying="(not a whole safetensors file|is empty|neither a safetensors).*copy or download it again",
    )


def test_the_state_of_a_run_is_no_model(tmp_path):
    save_state(tmp_path / "state.safetensors", {"step": 3, "weights": torch.zeros(3)})
    refused(
        tmp_path / "state.safetensors", saying=r"state of a training run.* load the checkpoint\.safetensors"
    )


def test_another_version_is_told_with_the_remedy(path, rewrite):
    sentence = refused(rewrite(path, version="9"), saying="of version 9, this release reads version 1")
    assert "install the pocketclip release that wrote it" in sentence


def test_missing_surplus_and_misshaped_tensors_are_listed(path, rewrite):
    def spoil(tensors):
        del tensors["model.text.position"]
        tensors["model.text.extra"] = torch.zeros(2)
        tensors["surprise"] = torch.zeros(2)
        tensors["model.logit_scale"] = torch.zeros(3)
        tensors["model.text.norm.weight"] = tensors["model.text.norm.weight"].half()

    sentence = refused(rewrite(path, tensors=spoil), saying="weights do not fit the checkpoint's own config")
    for problem in (
        "missing model.text.position",
        "surplus model.text.extra",
        "surplus surprise",
        "model.logit_scale is [3], expected []",
        "model.text.norm.weight is torch.float16, expected torch.float32",
    ):
        assert problem in sentence


def test_a_long_list_of_wrong_tensors_is_cut(path, rewrite):
    sentence = refused(
        rewrite(
            path, tensors=lambda tensors: [tensors.pop(name) for name in list(tensors) if "image" in name]
        ),
        saying="missing model.image",
    )
    assert re.search(r"and \d+ more", sentence)
    assert len(sentence) < 1000


def entry(path, name):
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[name])


@pytest.mark.parametrize(
    ("name", "change", "saying"),
    [
        ("model", lambda model: model.update(depth=3), "unknown field depth"),
        ("model", lambda model: model["image"].update(wings=2, fins=1), "unknown field fins, wings at image"),
        ("model", lambda model: model.pop("embed_dim"), "field 'embed_dim' is missing"),
        ("model", lambda model: model["text"].pop("width"), r"field 'width' is missing at text\.width"),
        ("model", lambda model: model["text"].update(width="128"), r"expected int, got '128' at text\.width"),
        ("model", lambda model: model["text"].update(layers=2.5), r"expected int, got 2\.5 at text\.layers"),
        ("model", lambda model: model["text"].update(causal=0), r"expected bool, got 0 at text\.causal"),
        ("model", lambda model: model["image"].update(widths=[24, None, 96]), r"at image\.widths\[1\]"),
        (
            "model",
            lambda model: model["image"].update(kind="resnet"),
            r"'resnet' at image",
        ),
        ("model", lambda model: model.update(image=7), "at image"),
        ("model", lambda model: model["text"].update(heads=7), "not a multiple of heads"),
        ("preprocess", lambda values: values.update(size="48"), "expected int, got '48' at size"),
        ("preprocess", lambda values: values.update(mean=[0.5, 0.5]), "at mean"),
        ("preprocess", lambda values: values.update(interpolation="nearest"), "'nearest' at interpolation"),
        ("preprocess", lambda values: values.update(std=[0, 0, 0]), "std"),
        ("tokenizer", lambda values: values.update(vocab_size=100), "vocab_size is 100"),
        ("tokenizer", lambda values: values.update(lower=True), "unknown field lower"),
    ],
)
def test_a_header_entry_that_does_not_fit_is_named_with_its_place(path, rewrite, name, change, saying):
    values = entry(path, name)
    change(values)
    sentence = refused(rewrite(path, **{name: values}), saying=saying)
    assert f"header entry {name!r}" in sentence
    assert "copy or train it again" in sentence


@pytest.mark.parametrize("name", ["model", "preprocess", "tokenizer", "run"])
@pytest.mark.parametrize("value", [None, "{not json", "[]", "3", '"text"'])
def test_a_missing_or_damaged_header_entry_is_named(path, rewrite, name, value):
    refused(rewrite(path, **{name: value}), saying=f"{name!r}.*copy or train it again")


def test_towers_of_impossible_size_are_told(path, rewrite):
    values = entry(path, "model")
    values["embed_dim"] = -5
    refused(rewrite(path, model=values), saying="'model' describes no model")
    values["embed_dim"] = 10**15
    refused(
        rewrite(path, model=values),
        saying=r"head\.weight is \[128, 192\], expected \[1000000000000000, 192\]",
    )


@pytest.mark.parametrize("spoiled", ["none", "garbage", "floats"])
def test_damaged_merges_are_told(path, rewrite, spoiled):
    def spoil(tensors):
        merges = tensors.pop("tokenizer.merges")
        if spoiled != "none":
            tensors["tokenizer.merges"] = merges.roll(7) if spoiled == "garbage" else merges.float()

    refused(rewrite(path, tensors=spoil), saying="tokenizer.merges.*copy or train it again")


@pytest.mark.parametrize("name", ["nowhere/at/all", "gone.safetensors", "./no such folder/x"])
def test_a_path_with_nothing_there_is_told(name):
    with pytest.raises(FileNotFoundError, match=r"does not exist: give a file written by `pocketclip train`"):
        load(name)


def test_a_folder_without_weights_is_told(tmp_path):
    refused(tmp_path, saying="holds no model that pocketclip reads")
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    refused(tmp_path, saying=r"holds no model that pocketclip reads.*model\.onnx")


def test_the_folder_of_a_run_is_as_good_as_its_checkpoint(path):
    digest = load(path).digest
    path.rename(path.with_name("checkpoint.safetensors"))
    path.with_name("metrics.jsonl").write_bytes(b"{}")
    assert load(path.parent).digest == digest


@pytest.mark.parametrize("name", ["pocketclip_tiny", "PocketCLIP-Tiny"])
def test_the_variant_may_be_asked_for(path, name):
    assert load(path, variant=name).config == load(path).config
    with pytest.raises(ValueError, match="does not hold a pocketclip_tiny_vit: its towers are"):
        load(path, variant="pocketclip_tiny_vit")
    with pytest.raises(ValueError, match="Unknown variant 'tiny'"):
        load(path, variant="tiny")


def test_an_unknown_name_is_told_with_close_ones():
    with pytest.raises(
        ValueError, match=r"pocketclip-tine is neither a checkpoint nor .* did you mean pocketclip_tiny"
    ):
        load("pocketclip-tine")


# What cannot be written


def test_an_unwritable_folder_is_told(tiny, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError, match=r"cannot write .*a\.safetensors.*choose another output"):
        save_again(tmp_path / "file" / "a.safetensors", tiny)
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(PublishError, match=r"cannot write .*a\.safetensors"):
            save_again(tmp_path / "closed" / "a.safetensors", tiny)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path, tiny):
    old = path.read_bytes()
    path.with_name(f".{path.name}.partial").symlink_to("/dev/full")
    with pytest.raises(PublishError, match=r"disk full while writing .*model\.safetensors.*free some space"):
        save_again(path, tiny, run={"new": True})
    assert path.read_bytes() == old
    assert names(path.parent) == [path.name]


def test_a_disk_full_at_the_last_moment_leaves_the_old_file(path, tiny, monkeypatch):
    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    old = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PublishError, match="disk full"):
        save_again(path, tiny, run={"new": True})
    assert path.read_bytes() == old
    assert names(path.parent) == [path.name]


def test_what_could_not_be_loaded_is_not_written(tiny, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(
        ValueError, match="was not written: the model is folded, or not the config's own: missing"
    ):
        save_again(path, tiny.folded())
    other = variant_config("pocketclip_tiny_vit").model
    with pytest.raises(ValueError, match="not written"):
        save_again(path, tiny, model=other)
    with pytest.raises(ValueError, match=r"not written.*torch\.float16"):
        save_again(path, replace(tiny, model=randomised("pocketclip_tiny").model.half()))
    tokenizer = replace(tiny.config.tokenizer, context_length=16)
    with pytest.raises(ValueError, match="not written.*tokenizer is"):
        save_again(path, tiny, tokenizer=tokenizer)
    assert names(tmp_path) == []


def test_a_device_that_is_not_there_is_told(tiny):
    for device in ("tpu9", "cuda:77", "meta:x"):
        with pytest.raises(ValueError, match=f"cannot be moved to device '{device}' .*try cpu"):
            tiny.to(device)
