"""Words: what is remembered and the short way for ASCII give what the engine gives."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketclip.data.words import BREAK, NUM_SHIPPED_MERGES, Words, read_merges, shipped_merges

PAIRS = read_merges(shipped_merges())
VISIBLE = [chr(i) for i in range(0x21, 0x7F) if not chr(i).isupper()]  # words are lower case
WORDS = Words(PAIRS)


def ids(words: Words, word: str) -> list[int]:
    return np.frombuffer(words[word], dtype=np.intc).tolist()


def test_the_shipped_merges_are_as_many_as_promised():
    assert len(PAIRS) == NUM_SHIPPED_MERGES


@pytest.mark.parametrize("num_merges", [0, 300, NUM_SHIPPED_MERGES])
def test_every_word_of_two_ascii_characters_is_what_the_engine_says(num_merges: int):
    words = Words(PAIRS[:num_merges])
    for word in [*VISIBLE, *map("".join, product(VISIBLE, repeat=2))]:
        assert ids(words, word) == words.encode(word), word


@pytest.mark.parametrize("length", [3, 4, 5])
def test_contractions_digits_and_signs_are_split_as_the_engine_splits_them(length: int):
    # Every letter of 's 't 're 've 'm 'll 'd, a digit, signs that the reference's pattern treats apart from it.
    alphabet = "'srevmltd1_" if length < 5 else "'srlv1_"
    for word in map("".join, product(alphabet, repeat=length)):
        assert ids(WORDS, word) == WORDS.encode(word), word


@given(st.text(st.sampled_from(VISIBLE), min_size=1, max_size=60))
@settings(max_examples=500)
def test_any_ascii_word_is_what_the_engine_says(word: str):
    assert ids(WORDS, word) == WORDS.encode(word)
    assert ids(WORDS, word) == WORDS.encode(word)  # remembered


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("", []),
        ("\n", [BREAK]),
        ("<start_of_text>", [49406]),
        ("cat<end_of_text>cat", [2368, 49407, 2368]),
        (
            "<<start_of_text>",
            WORDS.encode("<<") + WORDS.encode("start_of_text>"),
        ),  # the sign before it took the "<"
    ],
)
def test_what_is_no_ordinary_word(word: str, expected: list[int]):
    assert ids(WORDS, word) == expected
