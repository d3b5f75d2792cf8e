"""Choosing tokens: by probability, among those that are left, the same for the same number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.teachers.sampling import choose

EVERYTHING = {"temperature": 1.0, "top_k": None, "top_p": 1.0}


def grid(num: int) -> torch.Tensor:
    """Numbers spread evenly over [0, 1)."""
    return (torch.arange(num, dtype=torch.float64) + 0.5) / num


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=9),
    st.floats(0.2, 3.0),
    st.one_of(st.none(), st.integers(1, 12)),
    st.floats(0.01, 1.0),
)
def test_tokens_come_as_often_as_their_share_of_what_is_left(logits, temperature, top_k, top_p):
    num = 4000
    logits_NV = torch.tensor(logits).expand(num, -1)
    chosen = choose(logits_NV, grid(num), temperature=temperature, top_k=top_k, top_p=top_p)
    # Once more in plain numpy, token by token.
    order = sorted(range(len(logits)), key=lambda token: (-np.float32(logits[token]), token))
    kept = order[: top_k or len(order)]
    weight = np.exp(np.array([logits[token] for token in kept], np.float64) / temperature)
    share = weight / weight.sum()
    left = [token for place, token in enumerate(kept) if share[:place].sum() < top_p - 1e-12]
    expected = dict(zip(left, share[: len(left)] / share[: len(left)].sum(), strict=True))
    counts = np.bincount(chosen.numpy(), minlength=len(logits)) / num
    boundary = any(abs(share[:place].sum() - top_p) < 1e-9 for place in range(len(kept)))
    for token in range(len(logits)):
        if not boundary:
            assert counts[token] == pytest.approx(expected.get(token, 0.0), abs=1.5 / num)


def test_temperature_zero_takes_the_likeliest_and_few_candidates_do_too():
    torch.manual_seed(0)
    logits_NV = torch.randn(50, 30)
    likeliest = logits_NV.argmax(dim=-1)
    for settings in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-3}):
        assert torch.equal(choose(logits_NV, grid(50), **(EVERYTHING | settings)), likeliest)


def test_forbidden_tokens_never_come_whatever_the_number():
    logits_NV = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf]]).expand(5, -1)
    numbers = torch.tensor([0.0, 0.3, 0.9, 1 - 1e-16, float(np.nextafter(1, 0))], dtype=torch.float64)
    chosen = choose(logits_NV, numbers, **EVERYTHING)
    assert set(chosen.tolist()) == {0, 2}


def test_a_row_depends_on_itself_alone_and_on_no_generator():
    torch.manual_seed(0)
    logits_NV, numbers = torch.randn(20, 40), torch.rand(20, dtype=torch.float64)
    together = choose(logits_NV, numbers, temperature=0.8, top_k=20, top_p=0.9)
    torch.manual_seed(1)
    for row in range(20):
        alone = choose(logits_NV[row : row + 1], numbers[row : row + 1], temperature=0.8, top_k=20, top_p=0.9)
        assert alone.item() == together[row]
