"""What captions look like, whatever their pictures show: words, repetitions, variety."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_LONGEST = 4
_TIMES = 3


def words(text: str) -> list[str]:
    """A text's words in lower case, without punctuation.

    The usual scores are computed on words that a Java program (PTBTokenizer) cuts. This differs at
    hyphens and apostrophes.
    """
    return _WORD.findall(text.lower())


def is_degenerate(text: str) -> bool:
    """Whether a caption has no word, or says the same one to four words three times in a row ("a 2 2 2 2")."""
    said = words(text)
    return not said or any(
        said[start : start + size] * _TIMES == said[start : start + _TIMES * size]
        for size in range(1, _LONGEST + 1)
        for start in range(len(said) - _TIMES * size + 1)
    )


def distinct(texts: Iterable[str], *, n: int) -> float:
    """Different n-grams of all captions over all their n-grams, in [0, 1] (Li et al., 2016, arXiv 1510.03055)."""
    grams = [gram for text in texts for gram in _grams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def meteor_exact(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of 2005 with exact matches alone (Banerjee and Lavie, 2005, section 2.2), the best of all references.

    Precision P and recall R of single words give F = 10PR / (R + 9P); matched words that stand in c runs of m are
    fined: F (1 - 0.5 (c / m)^3). Stems, synonyms and paraphrases, which the later METEOR counts, need a Java program.
    Runs are matched longest first, which may find one run more than the fewest.
    """
    return max((_meteor(candidate, reference) for reference in references), default=0.0)


def _meteor(candidate: Sequence[str], reference: Sequence[str]) -> float:
    matched, runs = _aligned(list(candidate), list(reference))
    if not matched:
        return 0.0
    precision, recall = matched / len(candidate), matched / len(reference)
    f_mean = 10 * precision * recall / (recall + 9 * precision)
    return f_mean * (1 - 0.5 * (runs / matched) ** 3)


def _aligned(left: list[str], right: list[str]) -> tuple[int, int]:
    """Words that can be paired, and the runs they stand in."""
    left_free, right_free = [True] * len(left), [True] * len(right)
    matched = runs = 0
    while True:
        size, at, to = _longest_run(left, right, left_free, right_free)
        if not size:
            return matched, runs
        for offset in range(size):
            left_free[at + offset] = right_free[to + offset] = False
        matched, runs = matched + size, runs + 1


def _longest_run(
    left: list[str], right: list[str], left_free: list[bool], right_free: list[bool]
) -> tuple[int, int, int]:
    """Length and both beginnings of the longest run of free words that are the same; the first of equals."""
    best = (0, 0, 0)
    lengths = [0] * (len(right) + 1)
    for row, word in enumerate(left):
        before = lengths
        lengths = [0] * (len(right) + 1)
        for column, other in enumerate(right):
            if word == other and left_free[row] and right_free[column]:
                size = lengths[column + 1] = before[column] + 1
                if size > best[0]:
                    best = (size, row - size + 1, column - size + 1)
    return best


def _grams(said: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(said[start:] for start in range(n)), strict=False)
