from __future__ import annotations

import torch

from pocketclip.checkpoint.records import structure, unstructure
from pocketclip.models import VARIANTS, ClipConfig
from pocketclip.models.hybrid_text import HybridText

SMALL = {"vocab_size": 100, "context_length": 12, "width": 32, "heads": 4, "layers": 2}


def test_parameter_count_is_the_papers() -> None:
    row = VARIANTS["mobileclip_s0"].model
    with torch.device("meta"):
        tower = HybridText(row.text, embed_dim=row.embed_dim)
    assert round(sum(p.numel() for p in tower.parameters()) / 1e6, 1) == 42.4


def test_config_comes_back_from_json_as_what_it_was() -> None:
    for name in ("mobileclip_s0", "mobileclip2_s0"):
        model = VARIANTS[name].model
        assert structure(unstructure(model), ClipConfig) == model
