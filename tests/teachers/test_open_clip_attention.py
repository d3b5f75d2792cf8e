"""Merged attention: the numbers of the attention in whose place it is, in any precision; nothing else is touched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("open_clip")
pytestmark = pytest.mark.reference

from open_clip.coca_model import CoCa  # noqa: E402
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg  # noqa: E402
from open_clip.transformer import AttentionalPooler, ResidualAttentionBlock  # noqa: E402

from pocketclip.teachers.open_clip_attention import MergedAttention, merge_attention  # noqa: E402

VISION = CLIPVisionCfg(image_size=32, layers=2, width=32, head_width=16, patch_size=8)
TEXT = CLIPTextCfg(context_length=12, vocab_size=100, width=32, heads=4, layers=2)


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return CLIP(embed_dim=8, vision_cfg=VISION, text_cfg=TEXT).eval().requires_grad_(False)


def merged(model):
    model = copy.deepcopy(model)
    merge_attention(model)
    return model


@pytest.mark.parametrize(("dtype", "atol"), [(None, 2e-6), (torch.bfloat16, 2e-2)])
def test_both_towers_give_what_they_gave(clip, dtype, atol):
    image_BCHW, tokens_BL = torch.randn(3, 3, 32, 32), torch.randint(1, 99, (4, 12))
    model = merged(clip)
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        for method, batch in (("encode_image", image_BCHW), ("encode_text", tokens_BL)):
            rows = getattr(model, method)(batch, normalize=True).float()
            torch.testing.assert_close(
                rows, getattr(clip, method)(batch, normalize=True).float(), atol=atol, rtol=0
            )


def test_a_text_is_read_from_left_to_right(clip):
    tokens_BL = torch.randint(1, 50, (1, 12))
    tokens_BL[0, 5] = 99  # the largest, which open_clip takes for the end
    other_BL = tokens_BL.clone()
    other_BL[0, 6:] = 7
    with torch.inference_mode():
        rows = [merged(clip).encode_text(tokens) for tokens in (tokens_BL, other_BL)]
    torch.testing.assert_close(*rows, atol=2e-6, rtol=0)


def test_every_block_is_merged_and_its_weights_keep_their_names(clip):
    model = merged(clip)
    blocks = [module for module in model.modules() if isinstance(module, ResidualAttentionBlock)]
    assert len(blocks) == 4
    assert all(isinstance(block.attn, MergedAttention) for block in blocks)
    before, after = clip.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_attention_to_other_things_stays_as_it_is():
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    vision |= {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    text = {"context_length": 12, "vocab_size": 100, "width": 32, "heads": 4, "layers": 1}
    text |= {"embed_cls": True, "output_tokens": True}
    decoder = {"context_length": 12, "vocab_size": 100, "width": 32, "heads": 4, "layers": 1}
    model = CoCa(embed_dim=32, multimodal_cfg=decoder, text_cfg=text, vision_cfg=vision).eval()
    for parameter in model.parameters():  # open_clip leaves some as the memory was
        nn.init.normal_(parameter, std=0.02)
    merge_attention(model)
    poolers = [module for module in model.modules() if isinstance(module, AttentionalPooler)]
    across = [
        module
        for module in model.modules()
        if isinstance(module, ResidualAttentionBlock) and hasattr(module, "ln_1_kv")
    ]
    assert poolers
    assert across
    assert all(type(module.attn) is nn.MultiheadAttention for module in [*poolers, *across])
    with torch.inference_mode():
        outputs = model(torch.randn(1, 3, 32, 32), torch.randint(1, 99, (1, 12)))
    assert outputs["logits"].isfinite().all()
