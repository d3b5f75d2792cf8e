"""Captioners of open_clip: the same outputs from the same weights, and the same weights back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.checkpoint.conftest import fill

from pocketclip.checkpoint import convert, create, load, save, variant_config
from pocketclip.checkpoint.foreign_keys import their_tensors, to_ours, unnamed
from pocketclip.checkpoint.hub import model_files
from pocketclip.models import CAPTIONERS, Captioner

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
open_clip = pytest.importorskip("open_clip")

LENGTHS = (76, 127, 255)  # and a class token
OPEN_CLIP_NAMES = {"coca_vit_b_32": "coca_ViT-B-32", "coca_vit_l_14": "coca_ViT-L-14"}
# What the release calls its captioners, behind apple/mobileclip2_coca_dfn2b_s13b_.
PUBLISHED = (
    "context77",
    "dci-complete_s12m_context128",
    "dci-complete_s12m_context256",
    "dci-complete_s12m_context77",
    "dci-extended_s12m_context128",
    "dci-extended_s12m_context256",
    "dci-extended_s12m_context77",
    "dci-short_s12m_context128",
    "dci-short_s12m_context256",
    "dci-short_s12m_context77",
    "docci_s12m_context128",
    "docci_s12m_context256",
    "docci_s12m_context77",
    "gbc10m-long_context256",
    "gbc10m-short-relation_context256",
    "gbc1m-long_context256",
    "gbc1m-short_context77",
    "mscoco38k_s12m_context77",
    "recap-coco-30k_s12m_context128",
    "recap-coco-30k_s12m_context256",
    "recap-coco-30k_s12m_context77",
)


def config(length: int, *, width: int = 64, image_width: int = 128) -> dict:
    """A small CoCa in open_clip's words."""
    text = {"context_length": length, "vocab_size": 49408, "width": width, "heads": 2, "layers": 2}
    return {
        "embed_dim": width,
        "vision_cfg": {
            "image_size": 48,
            "layers": 2,
            "width": image_width,
            "head_width": 32,
            "patch_size": 16,
            "attentional_pool": True,
            "attn_pooler_queries": 9,
            "attn_pooler_heads": 4,
            "output_tokens": True,
        },
        "text_cfg": text | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": text | {"attn_pooler_heads": 2},
        "custom_text": True,
    }


def theirs(values: dict, *, seed: int = 0) -> torch.nn.Module:
    """open_clip's model with no number left at its starting value."""
    parts = {name: values[name] for name in ("embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg")}
    return fill(open_clip.CoCa(**parts), seed=seed)


def batch(length: int, *, image_px: int, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures, and texts of two lengths, one of them with the padding's id in its middle."""
    torch.manual_seed(0)
    tokens_BL = torch.randint(1, vocab_size - 2, (2, length))
    tokens_BL[:, 0] = vocab_size - 2
    for row, end in enumerate((length // 2, length - 1)):
        tokens_BL[row, end] = vocab_size - 1
        tokens_BL[row, end + 1 :] = 0
    tokens_BL[0, 3] = 0
    return torch.randn(2, 3, image_px, image_px), tokens_BL


def write_folder(folder: Path, values: dict, model: torch.nn.Module) -> Path:
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": values, "preprocess_cfg": {}}))
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def agree(model: Captioner, other: torch.nn.Module, *, length: int, image_px: int = 48) -> None:
    image_BCHW, tokens_BL = batch(length, image_px=image_px, vocab_size=49408)
    with torch.inference_mode():
        ours, reference = model(image_BCHW, tokens_BL), other(image_BCHW, tokens_BL)
    torch.testing.assert_close(ours.image_embed_BD, reference["image_features"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.text_embed_BD, reference["text_features"], atol=1e-5, rtol=1e-5)
    scale = reference["logits"].abs().max().item()
    torch.testing.assert_close(ours.caption_logits_BLV, reference["logits"], atol=1e-5 * scale, rtol=1e-5)
    assert torch.equal(ours.labels_BL, reference["labels"])
    assert ours.logit_scale == pytest.approx(reference["logit_scale"].item())


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "image_width", [64, 128]
)  # as wide as the embedding, or not: the pooler's weights are in one
def test_a_folder_of_open_clips_computes_the_same_and_goes_back(tmp_path, length, image_width):
    values = config(length, image_width=image_width)
    model = theirs(values)
    folder = write_folder(tmp_path / "in", values, model)
    loaded = load(folder)
    agree(loaded.model, model, length=length)
    assert loaded.config.tokenizer.context_length == length

    done = convert(folder, tmp_path / "coca.safetensors")
    assert (done.layout, done.num_tensors) == ("open_clip", len(model.state_dict()))
    assert done.num_decoder_parameters == sum(value.numel() for value in model.text_decoder.parameters())
    own = load(tmp_path / "coca.safetensors")
    assert own.digest == done.digest
    assert own.config == replace(loaded.config, run=own.config.run)

    convert(tmp_path / "coca.safetensors", tmp_path / "out", to="open_clip")
    back = open_clip.create_model(f"local-dir:{tmp_path / 'out'}", require_pretrained=True).eval()
    assert type(back) is open_clip.CoCa
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in back.state_dict().items())


@pytest.mark.parametrize("name", CAPTIONERS)
def test_every_coca_has_the_names_and_shapes_of_open_clips(name):
    row = CAPTIONERS[name]
    if not name.startswith("coca"):
        assert unnamed(row.model, "open_clip")  # of a FastViT, which open_clip's captioners do not have
        return
    values = open_clip.get_model_config(OPEN_CLIP_NAMES.get(name, "coca_ViT-L-14"))
    for part in ("text_cfg", "multimodal_cfg"):
        values[part]["context_length"] = row.model.text.context_length
    with torch.device("meta"):
        reference = {name: value.shape for name, value in open_clip.CoCa(
            **{part: values[part] for part in ("embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg")}
        ).state_dict().items()}  # fmt: skip
    assert {name: value.shape for name, value in their_tensors(row.model, "open_clip").items()} == reference
    assert row.model.pool.heads == values["vision_cfg"]["attn_pooler_heads"]
    assert row.model.decoder.heads == values["multimodal_cfg"]["heads"]
    assert row.image_px == values["vision_cfg"]["image_size"]


def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the large captioners small enough for a test: same names, same lengths."""
    import pocketclip.checkpoint.foreign as foreign
    from pocketclip.models import DecoderConfig, variants

    rows = {}
    for name, row in CAPTIONERS.items():
        model = row.model
        if name.startswith("coca_vit_l"):
            image = replace(model.image, width=64, heads=2, layers=1)
            text = replace(model.text, width=32, heads=2, layers=1, vocab_size=49408)
            decoder = DecoderConfig(heads=2, layers=1)
            model = replace(model, image=image, text=text, embed_dim=32, decoder=decoder)
        rows[name] = replace(row, model=model)
    monkeypatch.setattr(foreign, "CAPTIONERS", rows)
    monkeypatch.setattr(variants, "CAPTIONERS", rows)


@pytest.mark.parametrize("published", PUBLISHED)
def test_every_published_captioner_is_told_by_its_tensors(tmp_path, monkeypatch, published):
    """The release: a repository with a config.json that no library reads, and one .pt file."""
    shrunk(monkeypatch)
    length = int(published.rpartition("context")[2]) - 1
    row = "coca_vit_l_14" if length == 76 else f"coca_vit_l_14_context{length + 1}"
    expected = variant_config(row).model
    state = {
        name: torch.randn(value.shape) * 0.02 for name, value in their_tensors(expected, "open_clip").items()
    }
    folder = tmp_path / f"mobileclip2_coca_dfn2b_s13b_{published}"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("")
    torch.save(state, folder / "mobileclip2_coca.pt")
    names = [path.name for path in folder.iterdir()]
    assert model_files(names, where="here")[-1] == "mobileclip2_coca.pt"
    loaded = load(folder)
    assert loaded.config.model == expected
    assert loaded.config.run["converted"]["variant"] == row
    assert loaded.config.preprocess == variant_config("coca_vit_l_14").preprocess
    ours = to_ours(state, config=expected, layout="open_clip")
    assert all(torch.equal(value, ours[name]) for name, value in loaded.model.state_dict().items())


def test_there_are_21_published_captioners():
    assert len(set(PUBLISHED)) == 21


def test_a_text_of_another_length_is_adopted(tmp_path, monkeypatch):
    shrunk(monkeypatch)
    row = variant_config("coca_vit_l_14").model
    model = replace(row, text=replace(row.text, context_length=100))
    state = {name: torch.randn(value.shape) for name, value in their_tensors(model, "open_clip").items()}
    torch.save(state, tmp_path / "own.pt")
    loaded = load(tmp_path / "own.pt")
    assert loaded.config.model == model
    assert loaded.config.tokenizer.context_length == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multimodal_cfg": {"width": 32}}, "multimodal_cfg has width 32"),
        ({"multimodal_cfg": {"context_length": 20}}, "context_length 20"),
        ({"vision_cfg": {"attentional_pool": "cascade"}}, "attentional_pool 'cascade'"),
        ({"vision_cfg": {"no_ln_pre": True}}, "no_ln_pre"),
        ({"text_cfg": {"no_causal_mask": True}}, "no_causal_mask"),
        ({"multimodal_cfg": {"colour": 1}}, "colour"),
    ],
)
def test_another_kind_of_captioner_is_told(tmp_path, change, message):
    values = config(76)
    model = theirs(values)
    for part, fields in change.items():
        values[part] |= fields
    with pytest.raises(ValueError, match=message):
        load(write_folder(tmp_path / "in", values, model))


def test_a_captioner_on_a_fastvit_is_kept_by_pocketclip_alone(tmp_path):
    loaded = create("pocketclip_tiny_captioner")
    save(tmp_path / "own.safetensors", loaded.model, config=loaded.config, tokenizer=loaded.tokenizer)
    again = load(tmp_path / "own.safetensors", variant="pocketclip_tiny_captioner")
    assert isinstance(again.model, Captioner)
    assert again.digest == loaded.digest
    with pytest.raises(ValueError, match="does not hold a pocketclip_tiny"):
        load(tmp_path / "own.safetensors", variant="pocketclip_tiny")
    with pytest.raises(ValueError, match="captioners have plain ViTs as image towers"):
        convert(tmp_path / "own.safetensors", tmp_path / "out", to="open_clip")


@pytest.mark.slow
def test_the_full_b_32_computes_the_same(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = fill(open_clip.create_model("coca_ViT-B-32"))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded = load(tmp_path / "weights.pt")
    assert loaded.config.run["converted"]["variant"] == "coca_vit_b_32"
    agree(loaded.model, model, length=76, image_px=224)
