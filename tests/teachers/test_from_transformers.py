"""Teachers of transformers: CLIP, SigLIP and SigLIP 2 embed as their own models and processors do."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from pocketclip.teachers import EncodeError, TeacherSpec, build_teacher

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.reference

WORDS = ["<pad>", "</s>", "<s>", "<unk>", "a", "red", "circle", "blue", "square", "of"]
TEXTS = ["a red circle", "blue", "a square of a square of a square of a square", "a nameless thing"]
TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 9,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SQUARE = {"height": 24, "width": 24}


def clip():
    config = transformers.CLIPConfig(
        text_config=TEXT, vision_config=VISION | {"image_size": 24, "patch_size": 8}, projection_dim=12
    )
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 24}, crop_size=SQUARE, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    return transformers.CLIPModel(config), processor, ["input_ids", "attention_mask"]


def siglip():
    config = transformers.SiglipConfig(
        text_config=TEXT | {"projection_size": 16}, vision_config=VISION | {"image_size": 24, "patch_size": 8}
    )
    processor = transformers.SiglipImageProcessor(size=SQUARE, resample=Image.Resampling.BILINEAR)
    return transformers.SiglipModel(config), processor, ["input_ids"]


def siglip2():
    config = transformers.Siglip2Config(
        text_config=TEXT | {"projection_size": 16},
        vision_config=VISION | {"num_patches": 16, "patch_size": 8},
    )
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=9)
    return transformers.Siglip2Model(config), processor, ["input_ids"]


KINDS = {"clip": clip, "siglip": siglip, "siglip2": siglip2}


def word_tokenizer(names, *, words=WORDS, unknown=True):
    """Words to ids, with an end; without `unknown` a word that it does not know is an error."""
    rules = tokenizers.models.WordLevel(
        {word: i for i, word in enumerate(words)}, unk_token="<unk>" if unknown else "not in the table"
    )
    made = tokenizers.Tokenizer(rules)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", model_input_names=names
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model of each kind with random weights, as transformers writes it."""
    made = {}
    for seed, (kind, build) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        model, processor, names = build()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(
                    0.1 * torch.randn_like(parameter)
                )  # biases and scales start the same everywhere
        made[kind] = tmp_path_factory.mktemp(kind)
        for part in (model, processor, word_tokenizer(names)):
            part.save_pretrained(made[kind])
    return made


def build(folder, **settings):
    return build_teacher(TeacherSpec(name="hf", source=f"transformers:{folder}"), **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_model_and_its_processor(folders, kind):
    teacher = build(folders[kind])
    assert teacher.image_px == 24
    image_BHWC = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    model = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folders[kind])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    with torch.inference_mode():
        seen = processor(images=[Image.fromarray(image) for image in image_BHWC], return_tensors="pt")
        image = model.get_image_features(**seen).pooler_output
        ids = tokenizer(TEXTS, padding="max_length", max_length=9, truncation=True, return_tensors="pt")
        assert ("attention_mask" in ids) == (kind == "clip")
        text = model.get_text_features(**ids).pooler_output
    for rows, expected in ((teacher.encode_image(image_BHWC), image), (teacher.encode_text(TEXTS), text)):
        unit = expected / expected.norm(dim=-1, keepdim=True)
        np.testing.assert_allclose(rows, unit, atol=3e-6)
        assert np.abs(rows[0] - rows[1]).max() > 1e-3  # the tolerance tells inputs apart
    assert teacher.record.logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert teacher.record.embed_dim == (12 if kind == "clip" else 16)


@pytest.mark.parametrize("kind", KINDS)
def test_the_description_says_what_the_embeddings_depend_on(folders, kind):
    teacher = build(folders[kind])
    described = teacher.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["context_length"] == 9
    assert ("logit_bias" in described) == (kind != "clip")
    assert described["preprocess"]["interpolation"] == ("bicubic" if kind == "clip" else "bilinear")
    assert described["preprocess"]["mean"] == ([0.1, 0.2, 0.3] if kind == "clip" else [0.5, 0.5, 0.5])
    assert str(folders[kind]) not in json.dumps({**described, "source": ""})


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_is_that_of_the_weights_wherever_they_lie(folders, kind, tmp_path):
    digest = build(folders[kind]).record.digest
    copy = tmp_path / "deeper" / "copy"
    shutil.copytree(folders[kind], copy)
    assert build(copy).record.digest == digest
    model = transformers.AutoModel.from_pretrained(copy)
    model.logit_scale.data += 0.1
    model.save_pretrained(copy)
    changed = build(copy).record.digest
    word_tokenizer(KINDS[kind]()[2], words=[*WORDS[:-2], *WORDS[:-3:-1]]).save_pretrained(copy)
    assert len({digest, changed, build(copy).record.digest}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_close(folders, kind):
    image_BHWC = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    full, half = build(folders[kind]), build(folders[kind], precision="bf16")
    for exact, rounded in (
        (full.encode_image(image_BHWC), half.encode_image(image_BHWC)),
        (full.encode_text(TEXTS), half.encode_text(TEXTS)),
    ):
        np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1.0, atol=1e-6)
        assert 0 < np.abs(exact - rounded).max() < 0.03


def test_a_text_that_breaks_the_tokenizer_is_named(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders["clip"], copy)
    word_tokenizer(["input_ids", "attention_mask"], unknown=False).save_pretrained(copy)
    teacher = build(copy)
    with pytest.raises(
        EncodeError, match="teacher hf: the text 'a nameless thing' breaks the tokenizer"
    ) as caught:
        teacher.encode_text(TEXTS)
    assert caught.value.reasons.keys() == {3}
    assert teacher.encode_text(TEXTS[:3]).shape == (3, 12)


# What cannot be used


def test_models_of_other_kinds_are_refused(tmp_path):
    transformers.BertConfig(hidden_size=16).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="it is a bert, and teachers are clip, siglip, siglip2"):
        build(tmp_path)


def test_a_folder_without_a_model_is_told(tmp_path, folders):
    with pytest.raises((OSError, ValueError), match=f"teacher hf: transformers:{tmp_path} cannot be"):
        build(tmp_path)
    cut = tmp_path / "cut"
    shutil.copytree(folders["clip"], cut)
    path = cut / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises((OSError, ValueError), match="teacher hf: transformers:.*cut cannot be"):
        build(cut)


@pytest.mark.parametrize("damage", ["missing", "mismatched"])
def test_weights_that_do_not_fit_are_refused_rather_than_made_up(folders, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(folders["clip"], copy)
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    name = "text_projection.weight"
    if damage == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:-1].clone()
    safetensors.torch.save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="teacher hf: transformers:.*copy cannot be used"):
        build(copy)


def test_a_repository_that_cannot_be_reached_is_told(monkeypatch):
    def unreachable(name, **where):
        assert (name, where) == ("org/name", {"revision": "v2"})
        raise OSError("We couldn't connect to the hub\nand a long explanation")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(
        OSError, match=r"transformers:org/name@v2 cannot be found or downloaded \(We couldn't connect"
    ):
        build("org/name@v2")


def test_a_small_installation_is_told_what_to_install(monkeypatch, folders):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ImportError, match=r"teacher hf needs transformers.*pip install 'pocketclip\[teachers\]'"
    ):
        build(folders["clip"])
