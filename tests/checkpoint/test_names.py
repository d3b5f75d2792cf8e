"""Models by name, as open_clip is called."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tests.checkpoint.conftest import randomised

import pocketclip
from pocketclip.checkpoint import save, variant_config


def test_all_variants_are_listed():
    assert {"mobileclip2_s0", "pocketclip_tiny", "pocketclip_tiny_vit"} <= set(pocketclip.list_models())
    assert pocketclip.list_models() == sorted(pocketclip.list_models())


@pytest.mark.parametrize("name", ["pocketclip_tiny", "PocketCLIP-Tiny"])
def test_a_model_is_made_loaded_and_used_as_in_open_clip(name, path, tiny):
    model, train_transform, transform = pocketclip.create_model_and_transforms(name, pretrained=path)
    tokenizer = pocketclip.get_tokenizer(name)
    assert not model.training
    assert train_transform == transform
    for key, value in tiny.model.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    image = transform(Image.new("RGB", (70, 50), "red")).unsqueeze(0)
    text = tokenizer(["a diagram", "a dog", "a cat"])
    with torch.no_grad():
        image_features = model.encode_image(image, normalize=True)
        text_features = model.encode_text(text, normalize=True)
    probabilities = (100.0 * image_features @ text_features.T).softmax(dim=-1)
    assert probabilities.shape == (1, 3)
    assert probabilities.sum().item() == pytest.approx(1.0)
    assert torch.equal(text, tiny.tokenize(["a diagram", "a dog", "a cat"]))


@pytest.mark.parametrize("pretrained", [None, ""])
def test_without_pretrained_the_weights_are_random(pretrained):
    torch.manual_seed(3)
    one, _, _ = pocketclip.create_model_and_transforms("pocketclip_tiny", pretrained)
    torch.manual_seed(3)
    two, _, _ = pocketclip.create_model_and_transforms("pocketclip_tiny", pretrained=pretrained)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "mobileclip2_s0"])
def test_a_tokenizer_takes_one_text_or_several_and_makes_no_model(name):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tokenizer = pocketclip.get_tokenizer(name)
    assert torch.equal(torch.rand(1), expected)
    config = variant_config(name).tokenizer
    one, several = tokenizer("a photo"), tokenizer(["a photo", "b " * 200])
    assert one.shape == (1, config.context_length)
    assert several.dtype == torch.int64
    assert torch.equal(one[0], several[0])
    assert several[1, -1] == config.vocab_size - 1
    assert tokenizer("a photo", context_length=7).shape == (1, 7)


def test_a_checkpoint_of_another_variant_is_refused(tmp_path):
    vit = randomised("pocketclip_tiny_vit")
    path = tmp_path / "vit.safetensors"
    save(path, vit.model, config=vit.config, tokenizer=vit.tokenizer)
    with pytest.raises(ValueError, match=r"vit\.safetensors does not hold a pocketclip_tiny: its towers are"):
        pocketclip.create_model_and_transforms("pocketclip_tiny", pretrained=path)


def test_missing_files_and_unknown_names_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors does not exist: give pretrained"):
        pocketclip.create_model_and_transforms("pocketclip_tiny", pretrained=tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match="datacompdr does not exist"):
        pocketclip.create_model_and_transforms("pocketclip_tiny", pretrained="datacompdr")
    with pytest.raises(ValueError, match="holds no model that pocketclip reads"):
        pocketclip.create_model_and_transforms("pocketclip_tiny", pretrained=tmp_path)
    with pytest.raises(ValueError, match="Unknown variant 'ViT-B-32'"):
        pocketclip.create_model_and_transforms("ViT-B-32")
    with pytest.raises(ValueError, match="Unknown variant 'tiny'"):
        pocketclip.get_tokenizer("tiny")
