"""The error of a codec: that of the rows, and that of what a student is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.codec_error import CodecError, codec_error, cosines, pool, target_error


def unit(*shape: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def error_between(exact, stored, *, logit_scale):
    return target_error(
        image_BD=exact[0],
        text_BD=exact[1],
        stored_image_BD=stored[0],
        stored_text_BD=stored[1],
        logit_scale=logit_scale,
    )


@given(st.integers(1, 20), st.integers(2, 10), st.floats(1.0, 100.0), st.integers(0, 99))
def test_the_target_is_the_one_that_is_distilled(num, width, logit_scale, seed):
    exact = unit(2, num, width, seed=seed)
    stored = exact + 0.05 * unit(2, num, width, seed=seed + 1)
    kl, tv = error_between(exact, stored, logit_scale=logit_scale)
    logits = [
        logit_scale * torch.from_numpy(rows[0]).double() @ torch.from_numpy(rows[1]).double().T
        for rows in (exact, stored)
    ]
    expected_kl, expected_tv = [], []
    for turn in (lambda x: x, lambda x: x.T):
        log_exact, log_stored = (F.log_softmax(turn(one), dim=1) for one in logits)
        expected_kl.append(F.kl_div(log_stored, log_exact, reduction="batchmean", log_target=True))
        expected_tv.append((log_exact.exp() - log_stored.exp()).abs().sum(dim=1).mean() / 2)
    assert kl == pytest.approx(float(sum(expected_kl)) / 2, abs=1e-9)
    assert tv == pytest.approx(float(sum(expected_tv)) / 2, abs=1e-9)
    assert 0.0 <= tv <= 1.0


def test_equal_rows_cost_nothing_and_one_pair_has_no_alternatives():
    rows = unit(2, 9, 5, seed=0)
    assert error_between(rows, rows, logit_scale=100.0) == (0.0, 0.0)
    assert error_between(rows[:, :1], -rows[:, :1], logit_scale=100.0) == (0.0, 0.0)


def test_a_target_far_from_certain_moves_little_and_the_scale_multiplies():
    exact = unit(2, 40, 16, seed=0)
    stored = exact + 0.02 * unit(2, 40, 16, seed=1)
    moved = [error_between(exact, stored, logit_scale=scale)[1] for scale in (0.0, 1.0, 10.0)]
    assert moved[0] == 0.0
    assert 5 * moved[1] < moved[2]


def test_cosines_and_their_summary():
    exact = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], np.float32)
    stored = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]], np.float32)
    found = cosines(exact, stored)
    np.testing.assert_allclose(found, [1.0, 0.5**0.5, 0.0], atol=1e-12)
    error = codec_error(found, target=(0.5, 0.25))
    assert (error.cosine_min, error.target_kl, error.target_tv) == (0.0, 0.5, 0.25)
    assert error.cosine_mean == pytest.approx((1 + 0.5**0.5) / 3)


def test_errors_of_several_sets_are_pooled_by_their_rows():
    first = CodecError(cosine_mean=0.9, cosine_min=0.5, target_kl=0.1, target_tv=0.0)
    second = CodecError(cosine_mean=0.6, cosine_min=0.4, target_kl=0.4, target_tv=0.3)
    both = pool([(first, 20), (second, 10)])
    assert both.cosine_min == 0.4
    assert (both.cosine_mean, both.target_kl, both.target_tv) == pytest.approx((0.8, 0.2, 0.1))
    assert pool([(second, 1)]) == second
