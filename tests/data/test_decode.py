"""Ids back to text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.tokenize import Tokenizer, TokenizerConfig, clean
from pocketclip.data.words import END_OF_TEXT, NUM_BYTE_TOKENS, NUM_SPECIAL_TOKENS

SMALL = Tokenizer(TokenizerConfig(vocab_size=8192))
FULL = Tokenizer(TokenizerConfig())


@given(st.text(alphabet="abcdefghij 0123456789éß猫🐶", max_size=40))
def test_text_comes_back_without_its_spaces(text):
    for tokenizer in (SMALL, FULL):
        decoded = tokenizer.decode(tokenizer.encode(text))
        assert decoded.replace(" ", "") == clean(text).replace(" ", "")


def test_words_are_apart_and_marks_stand_alone():
    assert FULL.decode(FULL.encode("A Dog, it's  happy")) == "a dog , it 's happy"
    assert FULL.decode([FULL.sot_token_id, *FULL.encode("a dog"), FULL.eot_token_id]) == "a dog"
    assert FULL.decode([]) == ""


def test_bytes_that_are_no_text_are_left_out():
    ids = SMALL.encode("a 猫")
    assert SMALL.decode(ids[:-1]) == "a"


@pytest.mark.reference
def test_it_is_what_open_clip_reads():
    open_clip = pytest.importorskip("open_clip")
    theirs = open_clip.get_tokenizer("ViT-B-32")
    for start in range(NUM_BYTE_TOKENS // 2, 49408 - NUM_SPECIAL_TOKENS, 997):
        ids = [start, start + 3, start + 7]
        expected = theirs.decode(ids).replace("\ufffd", "")
        assert FULL.decode(ids) == " ".join(expected.split())
    assert END_OF_TEXT not in FULL.decode([5, FULL.eot_token_id])
