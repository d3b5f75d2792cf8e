"""What a query's words ask for: phrases that pictures should show, and phrases that they should not.

beach -people               the beach, without people
"old town" -"parked cars"   quotes keep words together
"red car" "snow"            several phrases: all of them
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_QUOTES = '"\u201c\u201d\u201e\u00ab\u00bb'
_PART = re.compile(
    rf"(?<!\S)(-?)[{_QUOTES}]([^{_QUOTES}]*)(?:[{_QUOTES}]|$)|(?<!\S)-(?=[^\s\-{_QUOTES}])(\S+)"
)


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """A query's words, taken apart.

    Attributes:
        wanted: each is embedded by itself; empty where only unwanted ones were given.
        unwanted: what is excluded.
    """

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()


def parse(text: str) -> Phrases:
    """Takes a query apart.

    A minus excludes where it begins a word or a quotation and something follows; elsewhere ("black-and-white", "a - b")
    it is a character. Words outside of quotations are one phrase. A quotation that is not closed ends with the text.
    No character is an error: a query is parsed at every keystroke.
    """
    wanted: list[str] = []
    unwanted: list[str] = []
    rest: list[str] = []
    end = 0
    for found in _PART.finditer(text):
        minus, quoted, word = found.groups()
        rest.append(text[end : found.start()])
        end = found.end()
        phrase = _one_line(quoted if word is None else word)
        if phrase:
            (unwanted if minus or word is not None else wanted).append(phrase)
    free = _one_line(" ".join([*rest, text[end:]]))
    return Phrases(wanted=(free, *wanted) if free else tuple(wanted), unwanted=tuple(unwanted))


def _one_line(text: str) -> str:
    return " ".join(text.split())
