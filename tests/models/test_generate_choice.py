"""Choosing tokens: by probability, among those that rules leave, the same for the same number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.models.generate_choice import NotFiniteError, Rules, check_finite, choose, noise

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
    num = 400
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


def test_a_large_vocabulary_is_cut_as_if_it_were_sorted():
    """Against a plain sort, for logits that spread over many intervals of probability, some, and one."""
    torch.manual_seed(0)
    for spread in (20.0, 3.0, 1e-4):
        logits_NV, numbers = torch.randn(40, 5000) * spread, torch.rand(40, dtype=torch.float64)
        for settings in ({"top_p": 0.9}, {"top_p": 0.2, "temperature": 0.7}, {"top_k": 100}, {"top_p": 1.0}):
            given = EVERYTHING | settings
            assert torch.equal(
                choose(logits_NV, numbers, **given), sorted_choice(logits_NV, numbers, **given)
            )


def sorted_choice(logits_NV, numbers, *, temperature, top_k, top_p):
    values, ids = logits_NV.sort(dim=-1, descending=True, stable=True)
    share = (values[:, :top_k].double() / temperature).softmax(dim=-1)
    share = share.where(share.cumsum(-1) - share < top_p, 0.0)
    reached = share.cumsum(-1)
    place = (reached <= numbers[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
    return ids.gather(-1, place).squeeze(-1)


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


# Numbers


def test_numbers_are_even_and_depend_on_seed_number_and_place_alone():
    numbers = noise([7, 2**64 - 1, 0], count=5, length=300)
    assert numbers.shape == (15, 300)
    assert 0 <= numbers.min() < numbers.max() < 1
    assert numbers.unique().numel() == numbers.numel()
    counts = torch.histc(numbers.float(), bins=10, min=0, max=1) / numbers.numel()
    assert (counts - 0.1).abs().max() < 0.02
    neighbours = torch.corrcoef(torch.stack([numbers[:, 1:].flatten(), numbers[:, :-1].flatten()]))[0, 1]
    assert abs(neighbours) < 0.05
    assert torch.equal(noise([2**64 - 1], count=2, length=10), numbers[5:7, :10])


# Rules


def test_the_end_waits_and_some_ids_never_come():
    rules = Rules(start=3, end=4, never=(0, 3), min_length=2)
    for length, ends in ((0, False), (1, False), (2, True)):
        logits_NV = torch.zeros(2, 5)
        rules.apply(logits_NV, torch.ones(2, length, dtype=torch.int64))
        assert logits_NV.isfinite().tolist() == [[False, True, True, False, ends]] * 2


def test_a_row_of_tokens_is_not_written_twice():
    logits_NV = torch.zeros(2, 6)
    Rules(start=4, end=5, no_repeat_ngram=2).apply(logits_NV, torch.tensor([[1, 2, 3, 1], [2, 2, 3, 3]]))
    assert logits_NV.isneginf().nonzero().tolist() == [[0, 2], [1, 3]]
    single = torch.zeros(1, 6)
    Rules(start=4, end=5, no_repeat_ngram=1).apply(single, torch.tensor([[1, 2, 1]]))
    assert single.isneginf().nonzero().tolist() == [[0, 1], [0, 2]]


def test_where_nothing_is_left_the_caption_ends():
    logits_NV = torch.zeros(1, 4)
    Rules(start=2, end=3, never=(2,), min_length=9, no_repeat_ngram=1).apply(
        logits_NV, torch.tensor([[0, 1]])
    )
    assert logits_NV.argmax() == 3


def test_what_was_written_becomes_less_likely():
    logits_NV = torch.tensor([[2.0, -2.0, 2.0, -2.0, 0.0]])
    Rules(start=3, end=4, repetition_penalty=2.0).apply(logits_NV, torch.tensor([[0, 1, 0]]))
    assert logits_NV.tolist() == [[1.0, -4.0, 2.0, -2.0, 0.0]]


def test_logits_that_are_not_finite_name_the_picture():
    logits_NV = torch.zeros(3, 4)
    check_finite(logits_NV, picture_N=torch.tensor([0, 0, 1]))
    for broken in (torch.nan, torch.inf):
        logits_NV[2, 1] = broken
        with pytest.raises(NotFiniteError, match="picture 7") as caught:
            check_finite(logits_NV, picture_N=torch.tensor([5, 5, 7]))
        assert caught.value.picture == 7
