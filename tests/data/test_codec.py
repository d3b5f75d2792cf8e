"""Codecs that store rows one by one: what comes back is close, row by row, wherever it is put."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.codec import PlainTable, decode, encode, expected

ROW_CODECS = ("fp32", "bf16", "int8")


def unit_rows(num: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def stored(rows, codec):
    return PlainTable(encode(rows, codec=codec), codec=codec)


@pytest.mark.parametrize("codec", ROW_CODECS)
@given(st.integers(1, 300), st.integers(2, 64), st.integers(0, 1000))
def test_any_selection_of_rows_decodes_to_the_same_values(codec, num, width, seed):
    rows = unit_rows(num, width, seed)
    table = stored(rows, codec)
    whole = decode(table, np.arange(num), embed_dim=width)
    tolerance = {"fp32": 0.0, "bf16": 2**-8, "int8": 1 / 127}[codec]
    assert np.abs(whole - rows).max() <= tolerance * np.abs(rows).max()
    chosen = np.random.default_rng(seed).integers(0, num, 7)
    np.testing.assert_array_equal(decode(table, chosen, embed_dim=width), whole[chosen])


@pytest.mark.parametrize("codec", ROW_CODECS)
def test_rows_go_to_their_places_and_nowhere_else(codec):
    rows = unit_rows(300, 8, 0)
    table = stored(rows, codec)
    place = np.random.default_rng(1).permutation(500)[:300]
    out = np.full((500, 8), 7.0, np.float32)
    table.decode_into(out, place, np.arange(300))
    np.testing.assert_array_equal(out[place], decode(table, np.arange(300), embed_dim=8))
    assert (np.delete(out, place, axis=0) == 7.0).all()


@pytest.mark.parametrize("codec", ROW_CODECS)
def test_tables_are_of_the_type_and_size_that_is_expected(codec):
    made = encode(unit_rows(5, 12, 0), codec=codec)
    wanted = expected(codec=codec, num_rows=5, embed_dim=12)
    assert {part: (table.kind, table.array.shape) for part, table in made.items()} == wanted
    bytes_of_a_row = {"fp32": 4 * 12, "bf16": 2 * 12, "int8": 12 + 4}[codec]
    assert sum(table.array.nbytes for table in made.values()) == 5 * bytes_of_a_row


def test_bf16_rounds_as_torch_does():
    rows = unit_rows(50, 33, 0)
    expected = torch.from_numpy(rows).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(decode(stored(rows, "bf16"), np.arange(50), embed_dim=33), expected)


def test_a_row_of_zeros_stays_one():
    for codec in ROW_CODECS:
        assert not decode(stored(np.zeros((2, 4), np.float32), codec), np.arange(2), embed_dim=4).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_refused(bad):
    rows = unit_rows(3, 4, 0)
    rows[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        encode(rows, codec="bf16")
