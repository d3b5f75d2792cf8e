"""Codecs: what comes back is close, row by row, and the measured error is the real one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.codec import CODECS, decode, encode, measure


def unit_rows(num: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("codec", CODECS)
@given(st.integers(1, 20), st.integers(2, 64), st.integers(0, 1000))
def test_any_selection_of_rows_decodes_to_the_same_values(codec, num, width, seed):
    rows = unit_rows(num, width, seed)
    parts = encode(rows, codec=codec)
    whole = decode(parts, codec=codec)
    chosen = np.random.default_rng(seed).integers(0, num, 7)
    np.testing.assert_array_equal(
        decode({k: v[chosen] for k, v in parts.items()}, codec=codec), whole[chosen]
    )
    assert whole.dtype == np.float32
    tolerance = {"fp32": 0.0, "bf16": 2**-8, "int8": 1 / 127}[codec]
    assert np.abs(whole - rows).max() <= tolerance * np.abs(rows).max()


def test_bf16_rounds_as_torch_does():
    rows = unit_rows(50, 33, 0)
    expected = torch.from_numpy(rows).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(decode(encode(rows, codec="bf16"), codec="bf16"), expected)


def test_measured_errors_are_ordered_and_exact_for_fp32():
    rows = unit_rows(200, 128, 1)
    errors = {codec: measure(rows, codec=codec) for codec in CODECS}
    assert errors["fp32"].cosine_min == pytest.approx(1.0, abs=1e-6)
    assert errors["bf16"].cosine_mean > 0.99999
    assert 0.999 < errors["int8"].cosine_min <= errors["int8"].cosine_mean < 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_refused(bad):
    rows = unit_rows(3, 4, 0)
    rows[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        encode(rows, codec="bf16")
