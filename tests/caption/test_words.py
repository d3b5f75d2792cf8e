"""Words, stutters, variety and METEOR against values worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.caption.words import distinct, is_degenerate, meteor_exact, words


def test_words_are_lower_case_without_punctuation():
    assert words("A man's DOG, on-line: 2 (two)!") == ["a", "man's", "dog", "on", "line", "2", "two"]


@pytest.mark.parametrize(
    "text",
    ["a 2 2 2 2", "", " . ", "the cat the cat the cat", "so it is so it is so it is", "Red red RED"],
)
def test_stutters_and_silence_are_degenerate(text):
    assert is_degenerate(text)


@pytest.mark.parametrize("text", ["a cat", "two two", "the cat and the cat and a dog", "very very red"])
def test_sentences_are_not(text):
    assert not is_degenerate(text)


def test_distinct_counts_over_all_captions():
    assert distinct(["a red cat", "a red dog"], n=1) == pytest.approx(4 / 6)
    assert distinct(["a red cat", "a red dog"], n=2) == pytest.approx(3 / 4)
    assert distinct(["cat"], n=2) == 0.0


@pytest.mark.parametrize(
    ("candidate", "reference", "value"),
    [
        ("the cat sat", "the cat sat", 1 - 0.5 / 27),  # one run of three
        ("sat cat the", "the cat sat", 1 - 0.5),  # three runs of one
        ("the dog", "the cat", 0.5 * (1 - 0.5)),  # one word of two, either way
        ("the cat", "the cat sat on it", (10 * 0.4 / (0.4 + 9)) * (1 - 0.5 / 8)),
        ("dog", "cat", 0.0),
    ],
)
def test_meteor_by_hand(candidate, reference, value):
    assert meteor_exact(candidate.split(), [reference.split()]) == pytest.approx(value)


def test_meteor_takes_the_best_reference_and_the_longest_run():
    assert meteor_exact(["cat"], [["dog"], ["cat"]]) == 0.5
    # "the cat" of the candidate's end stands beside "sat": one run of three, not two.
    value = meteor_exact(["the", "the", "cat", "sat"], [["the", "cat", "sat"]])
    assert value == pytest.approx(10 * 0.75 / (1 + 9 * 0.75) * (1 - 0.5 / 27))


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_meteor_is_a_share_and_zero_only_without_a_common_word(candidate, reference):
    value = meteor_exact(candidate, [reference])
    assert 0 <= value < 1
    assert (value > 0) == bool(set(candidate) & set(reference))
