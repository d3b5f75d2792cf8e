"""Prompts: short phrases get sentences around them, sentences and other languages do not."""

from __future__ import annotations

import pytest

from pocketclip.search.prompts import TEMPLATES, prompts


@pytest.mark.parametrize(
    ("phrase", "put"),
    [
        ("dog", "a dog"),
        ("elephant", "an elephant"),
        ("a dog", "a dog"),
        ("two dogs", "two dogs"),
        ("The sea", "The sea"),
    ],
)
def test_a_phrase_comes_bare_and_in_every_template_with_an_article(phrase: str, put: str):
    assert prompts(phrase) == [phrase, *(template.replace("{}", put) for template in TEMPLATES)]


@pytest.mark.parametrize(
    "sentence",
    [
        "a dog runs over the wet beach",
        "The dog is asleep",
        "a dog asleep.",
        "photo of a dog",
        "drawing of two cats",
        "ein Hund läuft",
        "собака",
        "犬",
    ],
)
def test_sentences_and_other_languages_are_taken_as_they_are(sentence: str):
    assert prompts(sentence) == [sentence]


def test_without_templates_a_phrase_is_bare():
    assert prompts("dog", ()) == ["dog"]
