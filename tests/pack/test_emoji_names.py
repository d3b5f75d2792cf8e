"""Names read as people write them, and parts are named out of code points."""

import pytest

from pocketclip.pack.emoji_names import (
    describe_parts,
    format_codepoints,
    load_names,
    parse_codepoints,
    readable_aliases,
    readable_name,
)

pytest.importorskip("emoji", reason="needs the extra demo")


@pytest.fixture(scope="module")
def names():
    return load_names(("en",))


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("1f469-1f3ff-200d-1f692", "woman firefighter: dark skin tone"),
        ("1f1f0-1f1fc", "flag: Kuwait"),
        ("1f3f4-e0067-e0062-e0073-e0063-e0074-e007f", "flag: Scotland"),
        ("2a-20e3", "keycap: *"),
        ("1f51f", "keycap: 10"),
        ("1f468-200d-1f469-200d-1f466", "family: man, woman, boy"),
        ("1f9d1-1f3fe-200d-1f9b0", "person: medium-dark skin tone, red hair"),
        ("1f9d4-1f3fe-200d-2642", "man: medium-dark skin tone, beard"),
        (
            "1f469-1f3ff-200d-2764-200d-1f469-1f3fe",
            "couple with heart: woman, woman, dark skin tone, medium-dark skin tone",
        ),
        ("1f468-200d-2764-200d-1f48b-200d-1f468", "kiss: man, man"),
        ("1f48b", "kiss mark"),
        ("1f3ff", "dark skin tone"),
        ("1f936-1f3fb", "Mrs. Claus: light skin tone"),
        ("1f170", "A button (blood type)"),
        ("1f45e", "man’s shoe"),
    ],
)
def test_names_are_in_the_style_of_cldr(names, stem, name):
    assert names[parse_codepoints(stem)].names["en"] == name


@pytest.mark.parametrize(
    ("stem", "text"),
    [
        ("1f469-1f3ff-200d-1f692", "emoji of woman, fire engine, dark skin tone"),
        ("1f3ca-1f3fe-200d-2640-fe0f", "emoji of person swimming, woman, medium-dark skin tone"),
        ("1f525", "emoji of fire"),
        ("1f1f0-1f1fc", "emoji of flag, code KW"),
        ("1f3f4-e0067-e0062-e0073-e0063-e0074-e007f", "emoji of flag, code GBSCT"),
        ("23-20e3", "emoji of keycap, #"),
    ],
)
def test_parts_are_named(names, stem, text):
    assert describe_parts(parse_codepoints(stem), names) == text


def test_every_name_is_its_own_and_every_part_has_one(names):
    english = [name.names["en"] for name in names.values()]
    assert len(set(english)) == len(english) > 3900
    assert all("_" not in text and "  " not in text and text == text.strip() for text in english)
    assert not [text for c in names if "U+" in (text := describe_parts(c, names))]


def test_aliases_are_other_words_only():
    aliases = [":money_mouth_face:", ":rich:", ":RICH:", ":de:", ":dollar_eyes:"]
    assert readable_aliases(aliases, name="money-mouth face") == ("rich", "dollar eyes")


def test_code_points_are_the_same_however_they_are_spelt():
    assert parse_codepoints("00A9-FE0F") == parse_codepoints("a9") == (0xA9,)
    assert (
        format_codepoints(parse_codepoints("1F469-200D-2764-FE0F-200D-1F468")) == "1f469-200d-2764-200d-1f468"
    )


def test_other_languages(names):
    both = load_names(("en", "de"))
    assert both[(0x1F525,)].names == {"en": "fire", "de": "feuer"}
    with pytest.raises(ValueError, match=r"no emoji names in tlh; there are en, "):
        load_names(("en", "tlh"))


def test_flags_are_told_by_code_points_not_by_name():
    assert readable_name(":Georgia:", (0x1F1EC, 0x1F1EA)) == "flag: Georgia"
    assert readable_name(":Georgia:", (0x41,)) == "Georgia"
