"""Other people's names and fields become ours without two becoming one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.foreign.fields import (
    find_field,
    make_key,
    parse_captions,
    parse_record,
    parse_text,
    take_captions,
)
from pocketclip.data.sample import Sample


@given(st.text())
def test_any_name_gives_a_key_that_a_sample_accepts(name):
    key = make_key(name)
    assert Sample(key=key, image=b"x", extension="png", captions=("a",)).key == key
    assert make_key(name) == key


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,88}[A-Za-z0-9_]", fullmatch=True))
def test_a_name_that_is_a_key_stays_as_it_is(name):
    assert make_key(name) == name


@given(st.lists(st.text(max_size=6), unique=True, max_size=20))
def test_different_names_give_different_keys(names):
    assert len({make_key(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["a/b", "a b", "a.b", "a-b", "ä-b", "a_b/", "x" * 200, "x" * 199 + "y"])
def test_keys_of_similar_names_differ(name):
    others = ["a/b", "a b", "a.b", "a-b", "ä-b", "a_b/", "x" * 200, "x" * 199 + "y"]
    assert [make_key(other) for other in others].count(make_key(name)) == 1


def test_names_that_are_not_utf8_give_keys():
    assert make_key("caf\udce9").startswith("caf-")
    assert make_key("\ud800") != make_key("\ud801")


def test_fields_are_found_by_rank_whatever_their_case():
    assert find_field(["Title", "File_Name ", "TEXT"], ("text", "title")) == "TEXT"
    assert find_field(["Title"], ("text", "title")) == "Title"
    assert find_field([], ("text",)) is None


def test_captions_are_texts_once_each():
    assert parse_captions([" a cat ", "", "a cat", None, 3, "a dog"]) == ("a cat", "a dog")
    assert parse_captions("one\n") == ("one",)
    assert parse_captions(None) == ()
    assert take_captions({"Caption": "a", "id": 7}) == (("a",), {"id": 7})


def test_records_are_json_objects():
    assert parse_record(b'\xef\xbb\xbf{"score": NaN, "x": [-Infinity, 1]}') == {"score": None, "x": [None, 1]}
    for data, words in [
        (b"[1]", "not a JSON object"),
        (b"{", "not JSON"),
        (b'{"a": "\xe9"}', r"not UTF-8 \(byte 7\)"),
        (b"[" * 100_000, "nested too deeply"),
    ]:
        with pytest.raises(ValueError, match=words):
            parse_record(data)


def test_texts_are_utf8():
    assert parse_text("\ufeffcafé".encode()) == "café"
    with pytest.raises(ValueError, match=r"not UTF-8 \(byte 3\): save it as UTF-8"):
        parse_text("café".encode("latin-1"))
