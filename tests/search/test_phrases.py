"""The query language: minus, quotes, and that nothing typed is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.search.phrases import parse


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("a red bicycle", ["a red bicycle"], []),
        ("beach -people", ["beach"], ["people"]),
        ("-people  beach\tat night -dogs", ["beach at night"], ["people", "dogs"]),
        ('"old town" -"parked  cars"', ["old town"], ["parked cars"]),
        ('snow "red car"', ["snow", "red car"], []),
        ("\u201cred car\u201d \u00absnow\u00bb", ["red car", "snow"], []),
        ('"two -words" x', ["x", "two -words"], []),
        ('beach -"two people', ["beach"], ["two people"]),
        ("black-and-white cat", ["black-and-white cat"], []),
        ("a - b -- c", ["a - b -- c"], []),
        ('6" tall', ['6" tall'], []),
        ('a "" b -""', ["a b"], []),
        ("-people", [], ["people"]),
        ("-", ["-"], []),
        ("  \n", [], []),
        ("пляж -люди", ["пляж"], ["люди"]),
    ],
)
def test_what_is_wanted_and_what_is_not(text: str, wanted: list[str], unwanted: list[str]):
    phrases = parse(text)
    assert (list(phrases.wanted), list(phrases.unwanted)) == (wanted, unwanted)


@given(st.text(alphabet=st.sampled_from('ab "-\u201c\n')))
def test_whatever_is_typed_is_a_query_of_clean_phrases(text: str):
    phrases = parse(text)
    for phrase in (*phrases.wanted, *phrases.unwanted):
        assert phrase == " ".join(phrase.split()) != ""
    letters = sorted("".join((*phrases.wanted, *phrases.unwanted)).replace(" ", "").replace("-", ""))
    kept = [letter for letter in letters if letter in "ab"]
    assert kept == sorted(letter for letter in text if letter in "ab")


@given(st.lists(st.text(alphabet="abc", min_size=1), min_size=1, max_size=5))
def test_words_alone_are_one_phrase(words: list[str]):
    assert parse(" ".join(words)).wanted == (" ".join(words),)
