"""Tokenizer: open_clip's ids on any text, small vocabularies, and the file for other hosts."""

from __future__ import annotations

import gzip
import json
import pickle

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HostTokenizer

from pocketclip.data.tokenize import Tokenizer, TokenizerConfig, clean

FULL = Tokenizer(TokenizerConfig())

# Pieces that meet a rule of cleaning or splitting, glued in any order by hypothesis.
PIECES = st.sampled_from(
    [
        "<start_of_text>", "<END_OF_TEXT>", "<ſtart_of_text>", "!", "'s", "'ſ", "'LL", "'re", " ", "\t", "\x1c",
        "\x85", "\u3000", "\u200b", "\u0345", "é", "Ã©", "â€™", "&amp;", "&amp;amp;", "&lt;", "&#x41;", "&#xD800;",
        "</w>", "Σ", "ΣΑΣ", "İ", "ß", "ﬁ", "Ⅷ", "½", "٣", "漢字", "한국", "ไทย", "👩🏽‍🚒", "\ud800", "\x00", "\x1b[31m",
        "\U0003d000", "\U00011de0", "\u0558", "dog", "aaaa", "x", "1234", "--", "“q”", "K", "\ufffd", "ǅ",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join), st.text(alphabet="ab '<>_.&;s1"))


@pytest.mark.reference
def test_ids_equal_open_clip_on_any_text():
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()

    @settings(max_examples=1500, deadline=None)
    @given(TEXTS, st.sampled_from([77, 8, 3, 2]))
    @example("!<start_of_text>", 77)
    @example("a photo of a <end_of_text> cat", 77)
    @example("日本語 " * 100, 77)
    def check(text: str, context_length: int) -> None:
        expected = reference(text, context_length).numpy()
        np.testing.assert_array_equal(FULL(text, context_length), expected)

    check()


@pytest.mark.reference
def test_both_ends_of_every_character_class_equal_open_clip():
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    regex = pytest.importorskip("regex")
    classes = regex.compile(r"([\p{L}])|([\p{N}])|([^\s\p{L}\p{N}])", regex.IGNORECASE)
    characters = [chr(i) for i in range(0x110000)]
    kind = [match.lastindex if (match := classes.match(c)) else 0 for c in characters]
    edges = [i for i in range(1, len(kind)) if kind[i] != kind[i - 1]]
    assert len(edges) > 1000
    for i in edges:
        text = " ".join(f"a{c}1{c}!{c}" for c in characters[i - 1 : i + 1])
        assert FULL.encode(text) == reference.encode(text), f"at U+{i:04X}"


def test_rows_hold_start_text_end_and_zeros():
    tokens_BL = FULL(["a photo of a cat", ""])
    assert tokens_BL.shape == (2, 77)
    assert tokens_BL.dtype == np.int64
    assert tokens_BL[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert tokens_BL[1, :3].tolist() == [49406, 49407, 0]
    assert FULL([]).shape == (0, 77)


def test_a_long_text_is_cut_and_still_ends():
    tokens_L = FULL("cat " * 200, 10)[0]
    assert tokens_L[0] == FULL.sot_token_id
    assert tokens_L[-1] == FULL.eot_token_id
    assert (tokens_L[1:-1] == 2368).all()


@given(st.text())
def test_cleaning_twice_is_cleaning_once_for_plain_text(text: str):
    if text.isascii() and text.isprintable() and "&" not in text:
        assert clean(text) == " ".join(text.split()).lower()
        assert clean(clean(text)) == clean(text)


@given(st.text(max_size=40), st.sampled_from([514, 515, 1000, 4096, 20000]))
@settings(max_examples=50, deadline=None)
def test_a_small_vocabulary_spells_the_same_bytes(text: str, vocab_size: int):
    # A prefix of the merges is a byte-pair encoding too: its tokens join to the same words.
    small = small_tokenizer(vocab_size)
    ids = small.encode(text)
    assert all(0 <= i < vocab_size - 2 for i in ids)
    assert spelled(small, ids) == spelled(FULL, FULL.encode(text))
    assert len(ids) >= len(FULL.encode(text))


_SMALL: dict[int, Tokenizer] = {}


def small_tokenizer(vocab_size: int) -> Tokenizer:
    if vocab_size not in _SMALL:
        _SMALL[vocab_size] = Tokenizer(TokenizerConfig(vocab_size=vocab_size))
    return _SMALL[vocab_size]


def spelled(tokenizer: Tokenizer, ids: list[int]) -> str:
    vocab = (
        json.loads(tokenizer.to_json())["model"]["vocab"] if tokenizer not in _SPELL else _SPELL[tokenizer]
    )
    _SPELL[tokenizer] = vocab
    token_of = {i: token for token, i in vocab.items()}
    return "".join(token_of[i] for i in ids)


_SPELL: dict[Tokenizer, dict[str, int]] = {}


def test_start_and_end_are_the_last_two_ids():
    small = Tokenizer(TokenizerConfig(vocab_size=1000, context_length=16))
    assert (small.sot_token_id, small.eot_token_id) == (998, 999)
    assert small("a").shape == (1, 16)
    assert small("a").max() == 999


@pytest.mark.parametrize("vocab_size", [514, 2000, 49408])
def test_json_round_trip(vocab_size: int):
    config = TokenizerConfig(vocab_size=vocab_size, context_length=24)
    tokenizer = Tokenizer(config)
    again = Tokenizer.from_json(tokenizer.to_json(), 24)
    assert again.config == config
    texts = ["A photo of a dog's house!", "crème &amp; brûlée <start_of_text> x", "123 猫"]
    np.testing.assert_array_equal(again(texts), tokenizer(texts))
    assert again.to_json() == tokenizer.to_json()


def test_other_merges_travel_in_the_json():
    merges = gzip.compress(b"#version\na b\nab c</w>\n")
    tokenizer = Tokenizer(TokenizerConfig(vocab_size=516), merges=merges)
    assert tokenizer.encode("abc") == [513]
    assert Tokenizer.from_json(tokenizer.to_json(), 77).encode("abc ab") == tokenizer.encode("abc ab")


def test_the_json_gives_other_hosts_the_same_ids():
    host = HostTokenizer.from_str(FULL.to_json())
    for text in ["a photo of a dog", "  Two  CATS, one dog's bowl; 3 fish!  ", "naïve café 漢字", "x " * 300]:
        assert host.encode(text).ids == FULL(text)[0].tolist()


def test_survives_pickling_to_workers():
    assert pickle.loads(pickle.dumps(FULL)).encode("a dog") == FULL.encode("a dog")  # noqa: S301


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "export the model again"),
        ("[]", "export the model again"),
        ('{"model": {"vocab": {}}}', "merges"),
        ('{"model": {"vocab": {"a": 1}, "merges": []}}', "another order"),
        ('{"model": {"vocab": {"a": 1}, "merges": [["a"]]}}', "export the model again"),
    ],
)
def test_a_damaged_json_is_refused(text: str, named: str):
    with pytest.raises(ValueError, match=named):
        Tokenizer.from_json(text, 77)


@pytest.mark.parametrize("vocab_size", [0, 513, 49409])
def test_an_impossible_vocabulary_is_refused(vocab_size: int):
    with pytest.raises(ValueError, match="vocab_size"):
        Tokenizer(TokenizerConfig(vocab_size=vocab_size))


def test_impossible_lengths_and_merges_are_refused():
    with pytest.raises(ValueError, match="context_length"):
        TokenizerConfig(context_length=1)
    with pytest.raises(ValueError, match="context_length"):
        FULL("a", 1)
    with pytest.raises(ValueError, match="gzip"):
        Tokenizer(TokenizerConfig(), merges=b"not gzip")
    with pytest.raises(ValueError, match="line 2"):
        Tokenizer(TokenizerConfig(vocab_size=515), merges=gzip.compress(b"#version\na b c\n"))
    with pytest.raises(TypeError, match="int"):
        FULL([3])  # ty: ignore[invalid-argument-type]
