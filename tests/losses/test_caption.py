"""The captioning loss is cross-entropy without padding, in memory that a chunk takes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pocketclip.losses import caption_nll

PADDING = 0


def make(*, num=5, length=7, width=6, vocabulary=11, seed=0):
    """Hidden states, a head, targets of which the last places are padding, as leaves."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num, length, width, generator=generator).requires_grad_()
    head = torch.randn(vocabulary, width, generator=generator).requires_grad_()
    bias = torch.randn(vocabulary, generator=generator).requires_grad_()
    targets = torch.randint(1, vocabulary, (num, length), generator=generator)
    for row in range(num):
        targets[row, 1 + row :] = PADDING
    return hidden, head, bias, targets


@pytest.mark.parametrize("chunk_elements", [1, 25, 2**24])
@pytest.mark.parametrize("biased", [False, True])
def test_value_and_gradients_are_those_of_cross_entropy(chunk_elements, biased):
    hidden, head, bias, targets = make()
    leaves = (hidden, head, *([bias] if biased else []))
    ours = caption_nll(
        hidden, head, targets, padding=PADDING, bias_V=bias if biased else None, chunk_elements=chunk_elements
    )
    logits = F.linear(hidden, head, bias if biased else None)
    theirs = F.cross_entropy(logits.mT, targets, ignore_index=PADDING, reduction="none").sum(1)
    torch.testing.assert_close(ours, theirs)
    weights = torch.arange(1.0, 6.0)
    got = torch.autograd.grad((ours * weights).sum(), leaves)
    wanted = torch.autograd.grad((theirs * weights).sum(), leaves)
    for left, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(left, right)


def test_mean_over_tokens_is_torchs_mean():
    hidden, head, _, targets = make()
    ours = caption_nll(hidden, head, targets, padding=PADDING).sum() / (targets != PADDING).sum()
    theirs = F.cross_entropy(F.linear(hidden, head).mT, targets, ignore_index=PADDING)
    torch.testing.assert_close(ours, theirs)


def test_what_stands_at_padding_counts_neither_in_value_nor_in_gradient():
    hidden, head, _, targets = make()
    (gradient,) = torch.autograd.grad(caption_nll(hidden, head, targets, padding=PADDING).sum(), hidden)
    assert (gradient[targets == PADDING] == 0).all()
    assert (gradient[targets != PADDING] != 0).any(-1).all()


def test_captions_of_padding_alone_are_zero_and_still_have_a_gradient():
    hidden, head, _, targets = make()
    targets[:] = PADDING
    nll = caption_nll(hidden, head, targets, padding=PADDING)
    assert nll.tolist() == [0.0] * 5
    nll.sum().backward()
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_sums_are_float32_under_autocast():
    hidden, head, _, targets = make(width=64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nll = caption_nll(hidden, head, targets, padding=PADDING, chunk_elements=25)
    assert nll.dtype == torch.float32
    exact = caption_nll(hidden, head, targets, padding=PADDING)
    torch.testing.assert_close(nll, exact, rtol=0.05, atol=0.2)
    nll.sum().backward()


def test_no_tensor_of_all_logits_is_ever_made():
    hidden, head, _, targets = make(num=8, length=40, vocabulary=1000)
    targets[:] = 1
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    with Watch():
        caption_nll(hidden, head, targets, padding=PADDING, chunk_elements=20_000).sum().backward()
    assert largest <= 20_000
