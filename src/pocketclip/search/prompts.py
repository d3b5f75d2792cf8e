"""Prompt ensembling: a phrase is embedded in a few sentences as well as bare, and the embeddings are averaged.

CLIP was trained on captions, and a word alone is an unusual one (arXiv 2103.00020, section 3.1.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

TEMPLATES = ("a photo of {}.", "a picture of {}.")
"""Where a phrase is put; "{}" stands for it, with "a" before it where it has no article or number of its own."""

_SENTENCE_WORDS = 6
_DETERMINER = re.compile(
    r"(?:an?|the|some|many|several|no|my|our|his|her|their|two|three|four|five|six|\d+)\s", re.IGNORECASE
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|photos?|photographs?|pictures?|images?|drawings?|paintings?)\b",
    re.IGNORECASE,
)


def prompts(phrase: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """The texts whose embeddings are averaged for a phrase: itself first.

    Sentences, and texts with letters that English does not have, are taken as they are: "a photo of" before them would
    be wrong, and models of several languages get what was typed.
    """
    if is_sentence(phrase) or not phrase.isascii():
        return [phrase]
    return [phrase, *(put(phrase, template) for template in templates)]


def put(phrase: str, template: str) -> str:
    """A phrase in a template, with an article where it has none."""
    return template.replace("{}", phrase if _DETERMINER.match(phrase) else f"{article(phrase)} {phrase}")


def is_sentence(phrase: str) -> bool:
    """Whether a phrase describes a picture by itself: it is long, ends as sentences do, has a verb or says "photo"."""
    return (
        len(phrase.split()) >= _SENTENCE_WORDS
        or phrase.endswith((".", "!", "?"))
        or bool(_VERB.search(phrase))
    )


def article(noun: str) -> str:
    """`an` before vowels, else `a`."""
    return "an" if noun[:1].lower() in "aeiou" else "a"
