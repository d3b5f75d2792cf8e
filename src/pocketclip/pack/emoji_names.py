"""What an emoji is called, read off its code points and the names the `emoji` package ships."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Codepoints: TypeAlias = tuple[int, ...]
"""An emoji as code points, without the presentation selector U+FE0F: the same however it is spelt."""

JOINER = 0x200D
SELECTOR = 0xFE0F
TONES = frozenset(range(0x1F3FB, 0x1F400))
FEMALE_SIGN, MALE_SIGN = 0x2640, 0x2642
KEYCAP = 0x20E3
BLACK_FLAG = 0x1F3F4
_LETTERS = range(0x1F1E6, 0x1F200)  # regional indicators A-Z
_TAGS = range(0xE0020, 0xE007F)  # tag characters, ASCII moved up
_TAG_END = 0xE007F

_TONE = r"(?:light|medium-light|medium|medium-dark|dark) skin tone"
_WHO = r"man|woman|boy|girl|person|adult|child"
_HAIR = r"beard|blond hair|red hair|curly hair|white hair|bald"
_GROUP = re.compile(rf"(family|couple with heart|kiss|man|woman|person)((?: (?:{_TONE}|{_WHO}|{_HAIR}))+)")
_TONED = re.compile(rf"(.+?)((?: {_TONE})+)")
_ITEM = re.compile(rf"{_TONE}|{_WHO}|{_HAIR}")


@dataclass(frozen=True, kw_only=True)
class EmojiName:
    """Names of one emoji.

    Attributes:
        names: language -> name, in readable form; English is in the style of CLDR ("kiss: man, man").
        aliases: other English names, each different from the name.
    """

    names: Mapping[str, str]
    aliases: tuple[str, ...]


def parse_codepoints(stem: str) -> Codepoints:
    """Code points of a file stem such as "1f469-1f3ff-200d-1f692" or "00A9-FE0F".

    Raises:
        ValueError: the stem is not hexadecimal numbers joined by "-".
    """
    return tuple(c for c in (int(part, 16) for part in stem.split("-")) if c != SELECTOR)


def format_codepoints(codepoints: Codepoints) -> str:
    """ "1f469-1f3ff-200d-1f692" again."""
    return "-".join(f"{c:x}" for c in codepoints)


def is_flag(codepoints: Codepoints) -> bool:
    """Whether it is the flag of a country or region (regional indicators or tags)."""
    return all(c in _LETTERS for c in codepoints) or codepoints[-1] == _TAG_END


def readable_name(name: str, codepoints: Codepoints) -> str:
    """English name in the style of CLDR, out of the package's ":woman_firefighter_dark_skin_tone:".

    Args:
        name: as the package spells it.
        codepoints: of the emoji; flags are told by them.

    Returns:
        "woman firefighter: dark skin tone", "flag: Kuwait", "keycap: 3", "family: man, woman, boy".
    """
    text = _words(name)
    if is_flag(codepoints):
        return f"flag: {text}"
    if text.startswith("keycap "):
        return text.replace(" ", ": ", 1)
    match = _GROUP.fullmatch(text) or _TONED.fullmatch(text)
    return f"{match[1]}: {', '.join(_ITEM.findall(match[2]))}" if match else text


def readable_aliases(aliases: Sequence[str], *, name: str) -> tuple[str, ...]:
    """Aliases in readable form, without codes ("de"), repetitions and other spellings of the name."""
    seen = {_essence(name)}
    kept = []
    for alias in map(_words, aliases):
        if len(alias) > 2 and _essence(alias) not in seen:
            seen.add(_essence(alias))
            kept.append(alias)
    return tuple(kept)


def describe_parts(codepoints: Codepoints, names: Mapping[Codepoints, EmojiName]) -> str:
    """A machine's description out of the code points: "emoji of woman, fire engine, dark skin tone".

    Args:
        codepoints: of the emoji.
        names: of every emoji, to name its components by.

    Returns:
        The description; skin tones come last.
    """
    if is_flag(codepoints):
        letters = [chr(c - _LETTERS[0] + ord("A")) for c in codepoints if c in _LETTERS]
        letters += [chr(c - 0xE0000).upper() for c in codepoints if c in _TAGS]
        return f"emoji of flag, code {''.join(letters)}"
    if codepoints[-1] == KEYCAP:
        return f"emoji of keycap, {chr(codepoints[0])}"
    parts = sorted((c for c in codepoints if c != JOINER), key=lambda c: c in TONES)
    return f"emoji of {', '.join(_part_name(c, names) for c in parts)}"


def _part_name(part: int, names: Mapping[Codepoints, EmojiName]) -> str:
    if part in (FEMALE_SIGN, MALE_SIGN):
        return "woman" if part == FEMALE_SIGN else "man"
    known = names.get((part,))
    return known.names["en"] if known else f"U+{part:04X}"


def load_names(languages: Sequence[str]) -> dict[Codepoints, EmojiName]:
    """Names of every emoji the `emoji` package knows.

    Args:
        languages: codes such as "en", "de".

    Raises:
        ValueError: the package has no such language.
        ImportError: the package is not installed.
    """
    import emoji

    unknown = [code for code in languages if code not in emoji.LANGUAGES]
    if unknown:
        raise ValueError(
            f"languages: no emoji names in {', '.join(unknown)}; there are {', '.join(emoji.LANGUAGES)}"
        )
    for code in languages:
        emoji.config.load_language(code)
    names: dict[Codepoints, EmojiName] = {}
    for text, entry in emoji.EMOJI_DATA.items():
        codepoints = tuple(ord(c) for c in text if ord(c) != SELECTOR)
        if codepoints in names:
            continue  # the same emoji with and without presentation selectors
        name = readable_name(entry["en"], codepoints)
        others = {code: _words(entry[code]) for code in languages if code != "en" and code in entry}
        names[codepoints] = EmojiName(
            names={"en": name, **others}, aliases=readable_aliases(entry.get("alias", ()), name=name)
        )
    return names


def _words(name: str) -> str:
    return name.strip(":").replace("_", " ").strip()


def _essence(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
