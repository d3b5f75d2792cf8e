"""A captioner of the hub, as Apple's release lays it out."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace

import torch

import pocketclip.checkpoint.foreign as foreign
from pocketclip.checkpoint import Style, load
from pocketclip.checkpoint.foreign_keys import their_tensors
from pocketclip.checkpoint.hub import PREFIX
from pocketclip.models import CAPTIONERS, Captioner, DecoderConfig

NAME = "apple/mobileclip2_coca_dfn2b_s13b_docci_s12m_context128"
FILE = "mobileclip2_coca_dfn2b_s13b_docci_s12m_context128.pt"


def test_a_published_captioner_loads_by_its_name_and_writes(hub, monkeypatch):
    row = CAPTIONERS["coca_vit_l_14_context128"]
    image = replace(row.model.image, width=64, heads=2, layers=1)
    text = replace(row.model.text, width=32, heads=2, layers=1)
    decoder = DecoderConfig(heads=2, layers=1)
    model = replace(row.model, image=image, text=text, embed_dim=32, decoder=decoder)
    small = replace(row, model=model)
    monkeypatch.setattr(foreign, "CAPTIONERS", {row.name: small})
    monkeypatch.setattr("pocketclip.models.variants.CAPTIONERS", {row.name: small})
    torch.manual_seed(0)
    state = {
        name: torch.randn(value.shape) * 0.1 for name, value in their_tensors(model, "open_clip").items()
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    hub.add(NAME, {FILE: buffer.getvalue(), "config.json": b"{}", "README.md": b"", "LICENSE": b""})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = load(PREFIX + NAME)
    assert isinstance(loaded.model, Captioner)
    assert loaded.config.model == model
    assert loaded.config.tokenizer.context_length == 127
    style = Style(num_captions=2, max_length=100)
    (captions,) = loaded.write(torch.randn(1, 3, 224, 224), style=style, seeds=[1])
    assert len(captions) == 2
    assert all(len(loaded.tokenizer.encode(caption)) > 20 for caption in captions)
    assert hub.downloaded() >= {FILE}
