"""Texts and pictures fit the places that a contact sheet has for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pocketclip.data.sheet import ellipsis, fit, font, wrap

SMALL = font(14)


@given(st.text(max_size=80))
def test_texts_wrap_within_their_column_and_lose_nothing(text: str):
    lines = wrap(text, SMALL, 150)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(SMALL.getlength(line) <= 150 or len(line) == 1 for line in lines)


@given(st.text(max_size=80), st.integers(20, 300))
def test_a_text_that_is_cut_says_so_and_one_that_fits_is_left(text: str, width: int):
    shown = ellipsis(text, SMALL, width)
    plain = " ".join(text.split())
    if SMALL.getlength(plain) <= width:
        assert shown == plain
    else:
        assert shown.endswith("...")
        assert plain.startswith(shown.removesuffix("..."))
        assert SMALL.getlength(shown) <= width


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((100, 50), (64, 32)),
        ((50, 100), (32, 64)),
        ((8, 4), (16, 8)),
        ((1000, 1), (64, 1)),
        ((64, 64), (64, 64)),
    ],
)
def test_pictures_keep_their_shape_and_grow_to_twice_their_size_at_most(size, fitted):
    assert fit(Image.new("RGB", size), 64) == fitted
