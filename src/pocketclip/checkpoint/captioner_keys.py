"""The names that open_clip gives a captioner's tensors, ours first; `|T` marks one that lies transposed there.

Facts: open_clip 3.3's CoCa, whose image tower is a plain ViT. Other image towers have no name in it.
"""

from __future__ import annotations

_TOWER_BLOCK = ("image.tower.blocks.{block}", "visual.transformer.resblocks.{block}")
_TEXT_BLOCK = ("text.blocks.{block}", "text.transformer.resblocks.{block}")
_OWN_BLOCK = ("decoder.blocks.{block}", "text_decoder.resblocks.{block}")
_LOOKING_BLOCK = ("decoder.looking.{block}", "text_decoder.cross_attn.{block}")

_CAUSAL = (
    ("norm", "ln_1"),
    ("attention.qkv.weight", "attn.in_proj_weight"),
    ("attention.qkv.bias", "attn.in_proj_bias"),
    ("attention.out", "attn.out_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn.up", "mlp.c_fc"),
    ("ffn.down", "mlp.c_proj"),
)
_LOOKING = (
    ("norm", "ln_1"),
    ("seen_norm", "ln_1_kv"),
    ("attention.weight", "attn.in_proj_weight"),
    ("attention.bias", "attn.in_proj_bias"),
    ("attention.out", "attn.out_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn.up", "mlp.c_fc"),
    ("ffn.down", "mlp.c_proj"),
)
_TOWER = (
    ("mixer.branch.norm", "ln_1"),
    ("mixer.branch.inner.qkv.weight", "attn.in_proj_weight"),
    ("mixer.branch.inner.qkv.bias", "attn.in_proj_bias"),
    ("mixer.branch.inner.out", "attn.out_proj"),
    ("ffn.branch.norm", "ln_2"),
    ("ffn.branch.inner.up", "mlp.c_fc"),
    ("ffn.branch.inner.down", "mlp.c_proj"),
)


def _under(part: tuple[str, str], leaves: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(f"{part[0]}.{ours}", f"{part[1]}.{theirs}") for ours, theirs in leaves]


TRANSPOSED = "|T"
ROWS: tuple[tuple[str, str], ...] = (
    ("logit_scale", "logit_scale"),
    ("image.tower.stem.weight", "visual.conv1.weight"),
    ("image.tower.class_token", "visual.class_embedding"),
    ("image.tower.position", "visual.positional_embedding"),
    ("image.tower.pre_norm", "visual.ln_pre"),
    *_under(_TOWER_BLOCK, _TOWER),
    ("image.pool.query", "visual.attn_pool.query"),
    ("image.pool.query_norm", "visual.attn_pool.ln_q"),
    ("image.pool.seen_norm", "visual.attn_pool.ln_k"),
    ("image.pool.attention.weight", "visual.attn_pool.attn.in_proj_weight"),
    ("image.pool.attention.query_weight", "visual.attn_pool.attn.q_proj_weight"),
    ("image.pool.attention.key_weight", "visual.attn_pool.attn.k_proj_weight"),
    ("image.pool.attention.value_weight", "visual.attn_pool.attn.v_proj_weight"),
    ("image.pool.attention.bias", "visual.attn_pool.attn.in_proj_bias"),
    ("image.pool.attention.out", "visual.attn_pool.attn.out_proj"),
    ("image.norm", "visual.ln_post"),
    ("image.head.weight", f"visual.proj{TRANSPOSED}"),
    ("text.token", "text.token_embedding"),
    ("text.class_token", "text.cls_emb"),
    ("text.position", "text.positional_embedding"),
    *_under(_TEXT_BLOCK, _CAUSAL),
    ("text.norm", "text.ln_final"),
    ("text.head.weight", f"text.text_projection{TRANSPOSED}"),
    *_under(_OWN_BLOCK, _CAUSAL),
    *_under(_LOOKING_BLOCK, _LOOKING),
    ("decoder.norm", "text_decoder.ln_final"),
    ("decoder.head.weight", f"text_decoder.text_projection{TRANSPOSED}"),
)
