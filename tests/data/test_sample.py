"""A sample accepts what a shard can hold, and says which key breaks which rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketclip.data.sample import MAX_KEY_LENGTH, Sample


def make(**changes):
    fields = {"key": "a", "image": b"x", "extension": "png", "captions": ("a cat",)}
    return Sample(**{**fields, **changes})


def test_texts_are_captions_then_synthetic_in_sorted_order():
    sample = make(captions=("one", "two"), synthetic={"zeta": ("z1", "z2"), "alpha": ("a1",)})
    assert sample.texts() == ("one", "two", "a1", "z1", "z2")


@given(st.text(alphabet="abcXYZ019_-", min_size=1, max_size=MAX_KEY_LENGTH))
def test_plain_keys_are_accepted(key):
    assert make(key=key).key == key


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "a b", "é", "a\n", "x" * (MAX_KEY_LENGTH + 1)])
def test_other_keys_are_refused_by_name(key):
    with pytest.raises(ValueError, match="sample key"):
        make(key=key)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extension": "PNG"}, "extension 'PNG'"),
        ({"extension": "gif"}, "extension 'gif'"),
        ({"image": b""}, "zero bytes"),
        ({"captions": ()}, "at least one caption"),
        ({"captions": ("fine", " \n")}, "a caption is empty"),
        ({"synthetic": {"machine": ("",)}}, "a caption is empty"),
        ({"captions": ("\ud800",)}, "UTF-8"),
        ({"meta": {"score": float("nan")}}, "meta is not JSON"),
        ({"meta": {"when": object()}}, "meta is not JSON"),
        ({"meta": {"text": "\udcff"}}, "meta is not JSON"),
    ],
)
def test_a_broken_rule_names_the_key(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        make(key="cat-7", **changes)
    assert "cat-7" in str(error.value)
