"""The language of a caption: by py3langid where it is installed, else by its script alone."""

from __future__ import annotations

import importlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

UNKNOWN = "und"
"""Of a caption without letters (ISO 639-3's code for undetermined)."""

# Scripts that one language writes, nearly: the first word of a letter's Unicode name.
_OF_SCRIPT = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "GREEK": "el",
    "HEBREW": "he",
    "THAI": "th",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "KHMER": "km",
    "LAO": "lo",
    "MYANMAR": "my",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "GUJARATI": "gu",
    "SINHALA": "si",
    "TIBETAN": "bo",
}
_SEVERAL = {"LATIN": "latn", "CYRILLIC": "cyrl", "ARABIC": "arab", "DEVANAGARI": "deva", "BENGALI": "beng"}
"""Scripts of many languages: their ISO 15924 codes stand for a language that is not told."""

SCRIPT_CODES = frozenset([*_OF_SCRIPT.values(), *_SEVERAL.values(), UNKNOWN])
"""What can be told by script alone."""


def find_detector(among: Sequence[str] = ()) -> tuple[str, Callable[[str], str]]:
    """What tells languages here: its name with its version, and a function from a caption to a code.

    Codes are of ISO 639-1; by script alone those of ISO 15924 for scripts that many languages share (`latn`).

    Args:
        among: the languages that occur; the fewer, the fewer short captions are taken for another one. None for all.

    Raises:
        ValueError: one of them is not known.
    """
    try:
        py3langid = importlib.import_module("py3langid")
    except ImportError:
        return "script", script_of
    py3langid.set_languages(list(among) or None)

    def detect(text: str) -> str:
        return str(py3langid.classify(text)[0]) if any(map(str.isalpha, text)) else UNKNOWN

    return f"py3langid {py3langid.__version__}", detect


def script_of(text: str) -> str:
    """The language or script that most letters of a text belong to; Japanese where there is any kana."""
    counts: Counter[str] = Counter()
    for letter in text:
        if letter.isalpha():
            name = unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]
            counts[_OF_SCRIPT.get(name) or _SEVERAL.get(name) or UNKNOWN] += 1
    if not counts:
        return UNKNOWN
    if counts["ja"] and counts["zh"]:
        return "ja"
    return max(sorted(counts), key=counts.__getitem__)


def code_number(code: str) -> int:
    """A code of one to four letters as a number that fits 32 bits; other codes are `UNKNOWN`'s."""
    if not (1 <= len(code) <= 4 and code.isascii()):
        code = UNKNOWN
    return int.from_bytes(code.encode("ascii").rjust(4, b"\0"))


def code_of(number: int) -> str:
    """The inverse of `code_number`."""
    return int(number).to_bytes(4).lstrip(b"\0").decode("ascii")
