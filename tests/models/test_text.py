from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.models import VARIANTS, TextConfig
from pocketclip.models.text import TextTransformer

SMALL = {"vocab_size": 100, "context_length": 12, "width": 32, "heads": 4, "layers": 2}
END = 99


def padded(ids: list[int], length: int) -> torch.Tensor:
    return torch.tensor([[98, *ids, END] + [0] * (length - len(ids) - 2)])


@pytest.mark.reference
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_equals_open_clip(causal, text_from_open_clip, scramble, relative_error) -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    reference = scramble(transformer.TextTransformer(**SMALL, output_dim=24, no_causal_mask=not causal))
    ours = TextTransformer(TextConfig(**SMALL, causal=causal), embed_dim=24).eval()
    ours.load_state_dict(text_from_open_clip(reference.state_dict()), strict=True)
    tokens_BL = torch.cat([padded([1, 2, 3], 12), padded(list(range(5, 15)), 12), padded([], 12)])
    assert relative_error(ours(tokens_BL), reference(tokens_BL)) < 1e-5


# One variant for each plain text tower.
FAMILY = ("mobileclip2_s0", "mobileclip2_b", "mobileclip2_s3")


def test_family_has_every_published_tower_of_this_kind() -> None:
    towers = {row.model.text for name, row in VARIANTS.items() if not name.startswith("pocketclip")}
    plain = {text for text in towers if isinstance(text, TextConfig)}
    assert plain == {VARIANTS[name].model.text for name in FAMILY}


@pytest.mark.reference
@pytest.mark.parametrize("name", FAMILY)
@torch.no_grad()
def test_family_equals_open_clip_at_one_block(name, text_from_open_clip, scramble, relative_error) -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    model = VARIANTS[name].model
    config = dataclasses.replace(model.text, layers=1)
    reference = transformer.TextTransformer(
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        width=config.width,
        heads=config.heads,
        layers=1,
        output_dim=model.embed_dim,
        no_causal_mask=not config.causal,
    )
    ours = TextTransformer(config, embed_dim=model.embed_dim).eval()
    ours.load_state_dict(text_from_open_clip(scramble(reference).state_dict()), strict=True)
    tokens_BL = torch.randint(1, config.vocab_size - 2, (2, config.context_length))
    tokens_BL[0, 9:] = 0
    tokens_BL[0, 8] = tokens_BL[1, -1] = config.vocab_size - 1
    assert relative_error(ours(tokens_BL), reference(tokens_BL)) < 1e-5


@given(ids=st.lists(st.integers(1, 97), max_size=10), junk=st.integers(0, 97))
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_causal_tower_sees_nothing_after_the_end(ids: list[int], junk: int) -> None:
    torch.manual_seed(0)
    tower = TextTransformer(TextConfig(**SMALL, causal=True), embed_dim=8).eval()
    full = padded(ids, 12)
    with_junk = torch.where(full == 0, junk, full)
    short = full[:, : len(ids) + 2]
    torch.testing.assert_close(tower(with_junk), tower(full))
    torch.testing.assert_close(tower(short), tower(full))


@given(
    ids=st.lists(st.integers(1, 97), min_size=1, max_size=10), at=st.integers(0, 9), other=st.integers(1, 97)
)
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_every_token_of_the_text_matters(ids: list[int], at: int, other: int) -> None:
    torch.manual_seed(0)
    changed = list(ids)
    changed[at % len(ids)] = other
    for causal in (False, True):
        tower = TextTransformer(TextConfig(**SMALL, causal=causal), embed_dim=8).eval()
        same = torch.allclose(tower(padded(changed, 12)), tower(padded(ids, 12)), atol=1e-6)
        assert same == (changed == ids)


def test_too_many_tokens_are_refused() -> None:
    tower = TextTransformer(TextConfig(**SMALL), embed_dim=8)
    with pytest.raises(ValueError, match="13 tokens is longer .* context_length 12"):
        tower(torch.ones(1, 13, dtype=torch.int64))


def test_every_parameter_learns() -> None:
    tower = TextTransformer(TextConfig(**SMALL), embed_dim=8)
    tower(padded([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 12)).square().sum().backward()
    assert not [name for name, p in tower.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    ("change", "message"), [({"heads": 5}, "multiple of heads 5"), ({"layers": 0}, "layers is 0")]
)
def test_bad_configs_are_refused_with_the_field(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        TextConfig(**{**SMALL, **change})
