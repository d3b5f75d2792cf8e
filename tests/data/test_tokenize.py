"""Tokenizer: open_clip's ids on any text, small vocabularies, and the file for other hosts."""

from __future__ import annotations

import gzip
import html.entities
import json
import pickle
import random
import subprocess
import sys
import threading
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HostTokenizer

from pocketclip.data import words
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig, clean
from pocketclip.data.words import shipped_merges

FULL = Tokenizer(TokenizerConfig())

# Pieces that meet a rule of cleaning or splitting, glued in any order by hypothesis.
PIECES = st.sampled_from(
    [
        "<start_of_text>", "<END_OF_TEXT>", "<ſtart_of_text>", "!", "'s", "'ſ", "'LL", "'re", " ", "\t", "\x1c",
        "\x85", "\u3000", "\u200b", "\u0345", "é", "Ã©", "â€™", "&amp;", "&amp;amp;", "&lt;", "&#x41;", "&#xD800;",
        "</w>", "Σ", "ΣΑΣ", "İ", "ß", "ﬁ", "Ⅷ", "½", "٣", "漢字", "한국", "ไทย", "👩🏽‍🚒", "\ud800", "\x00", "\x1b[31m",
        "\U0003d000", "\U00011de0", "\u0558", "dog", "aaaa", "x", "1234", "--", "“q”", "K", "\ufffd", "ǅ", "\n", "\r\n",
        "ſ", "ẞ", "ŉ", "ﬃ", "ͅ", "ı", "Å", "́", "̈", "<", "&lt;start_of_text&gt;", "&lt;end_of_text>", "_", "don't",
        "🇩🇪", "1️⃣", "👨‍👩‍👧", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "❤️", "\ufeff", "\u202e", "\u2028", "\xa0", "\udfff", "ｆｕｌｌ", "ﾊﾝｶｸ",
    ]
)  # fmt: skip
ENTITIES = st.builds(
    lambda amps, body, end: "&" + "amp;" * amps + body + end,
    st.integers(0, 3),
    st.one_of(
        st.sampled_from(sorted(html.entities.html5)).map(lambda name: name.rstrip(";")),
        st.integers(-1, 0x120000).map(lambda number: f"#{number}"),
        st.integers(0, 0x120000).map(lambda number: f"#x{number:x}"),
    ),
    st.sampled_from([";", "", " ", "&", ";;"]),
)
MOJIBAKE = st.builds(
    lambda text, kind: text.encode("utf-8").decode(kind, errors="replace"),
    st.one_of(
        st.text(max_size=8), st.sampled_from(["naïve café", "“quoted”", "it’s – 5 €", "日本", "👍", "Ñandú"])
    ),
    st.sampled_from(["latin-1", "cp1252", "cp1251", "cp1250", "cp437", "mac-roman"]),
)
ANY_PLANE = st.builds(lambda plane, low: chr(plane << 16 | low), st.integers(0, 16), st.integers(0, 0xFFFF))
MARKS = st.characters(categories=["Mn", "Mc", "Me", "Sk", "Lm"])
CONTROLS = st.characters(categories=["Cc", "Cf", "Zs", "Zl", "Zp"])
CASED = st.characters(categories=["Lu", "Lt", "Ll"])
MIXED = st.one_of(PIECES, ENTITIES, MOJIBAKE, ANY_PLANE, MARKS, CONTROLS, CASED, st.characters())
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet=st.characters()),  # lone surrogates too
    st.text(alphabet="ab '<>_.&;s1"),
    st.text(alphabet=st.characters(codec="ascii")),
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(MIXED, max_size=12).map("".join),
    st.lists(MIXED, max_size=12).map(" ".join),
)


def assert_equal_to_open_clip(num_texts: int) -> None:
    """Compares at least so many different texts: every run of neighbours in lists of drawn pieces."""
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    seen: set[str] = set()

    @settings(max_examples=num_texts // 12, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(MIXED, TEXTS), min_size=7, max_size=9), st.sampled_from([77, 77, 8, 3, 2]))
    @example(["!", "<start_of_text>", "a photo of a ", "<end_of_text>", " cat", "日本語 " * 100], 77)
    def check(pieces: list[str], context_length: int) -> None:
        ends = range(len(pieces) + 1)
        texts = ["".join(pieces[begin:end]) for begin in ends for end in ends[begin + 1 :]]
        expected = reference(texts, context_length).numpy()
        for text, row, expected_row in zip(texts, FULL(texts, context_length), expected, strict=True):
            assert row.tolist() == expected_row.tolist(), repr(text)
        seen.update(texts)

    check()
    assert len(seen) >= num_texts


@pytest.mark.reference
def test_ids_equal_open_clip_on_any_text():
    assert_equal_to_open_clip(600)


@pytest.mark.slow
@pytest.mark.reference
def test_ids_equal_open_clip_on_100_000_texts():
    assert_equal_to_open_clip(100_000)


@pytest.mark.reference
def test_ids_equal_open_clip_on_every_short_ascii_text():
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    ascii_ = [chr(i) for i in range(128)]
    texts = [*ascii_, *map("".join, product(ascii_, repeat=2))]
    np.testing.assert_array_equal(FULL(texts, 8), reference(texts, 8).numpy())


@pytest.mark.reference
@pytest.mark.parametrize("context_length", [*range(2, 24), 77, 248])
def test_every_cut_equals_open_clip(context_length: int):
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    texts = ["x " * n for n in range(26)] + [
        "a dog's <end_of_text> 1234 — naïve; 漢字 &amp; <start_of_text>",
        "!" * 999,
    ]
    np.testing.assert_array_equal(FULL(texts, context_length), reference(texts, context_length).numpy())


@pytest.mark.reference
@pytest.mark.parametrize("vocab_size", [514, 600, 8192])
def test_a_small_vocabulary_equals_open_clip_with_fewer_merges(vocab_size: int, tmp_path):
    simple = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer
    lines = gzip.decompress(shipped_merges()).split(b"\n")
    (tmp_path / "merges.gz").write_bytes(gzip.compress(b"\n".join(lines[: vocab_size - 514 + 1])))
    reference = simple(str(tmp_path / "merges.gz"))
    assert reference.vocab_size == vocab_size
    small = small_tokenizer(vocab_size)

    @settings(max_examples=200)
    @given(TEXTS)
    @example("<start_of_text>'s unbelievable naïveté, 1234 times")
    def check(text: str) -> None:
        np.testing.assert_array_equal(small(text, 20), reference(text, 20).numpy())

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


@given(st.lists(TEXTS, max_size=8), st.sampled_from([2, 9, 77]))
@settings(max_examples=100)
def test_a_text_does_not_depend_on_its_neighbours(texts: list[str], context_length: int):
    rows = [FULL(text, context_length)[0] for text in texts]
    np.testing.assert_array_equal(FULL(texts, context_length), np.reshape(rows, (-1, context_length)))
    for text, row in zip(texts, FULL(texts, context_length), strict=True):
        ids = [FULL.sot_token_id, *FULL.encode(text)[: context_length - 2], FULL.eot_token_id]
        assert row.tolist() == ids + [0] * (context_length - len(ids))


def test_large_batches_are_the_sum_of_small_ones():
    texts = [f"{'very ' * (i % 90)}small dog {i}" for i in range(2500)]
    small = np.concatenate([FULL(texts[i : i + 7]) for i in range(0, len(texts), 7)])
    np.testing.assert_array_equal(FULL(texts), small)
    np.testing.assert_array_equal(FULL(np.array(texts)), small)
    np.testing.assert_array_equal(FULL(tuple(texts)), small)


def numbered_texts(num: int) -> list[str]:
    return [f"dog{i} & <start_of_text> naïve{i % 7} <b>cat-{i // 3}</b>" for i in range(num)]


def test_memory_is_bounded_and_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    texts = numbered_texts(200)
    expected = FULL(texts)
    forgetful = Tokenizer(TokenizerConfig())
    monkeypatch.setattr(words, "_MAX_REMEMBERED", 5)
    for _ in range(2):
        np.testing.assert_array_equal(forgetful(texts), expected)
        assert len(forgetful._words) <= 5
    forgetful(["a" * 100_000, "漢" * 1000])
    assert max(map(len, forgetful._words)) < 100


def test_threads_share_a_tokenizer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words, "_MAX_REMEMBERED", 20)
    texts = numbered_texts(300)
    expected = dict(zip(texts, FULL(texts), strict=True))
    shared, wrong = Tokenizer(TokenizerConfig()), []

    def work(seed: int) -> None:
        mine = random.Random(seed).sample(texts, len(texts))
        for i in range(0, len(mine), 10):
            for text, row in zip(mine[i : i + 10], shared(mine[i : i + 10]), strict=True):
                if (row != expected[text]).any():
                    wrong.append(text)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this system")
def test_works_on_both_sides_of_a_fork():
    program = """
import os, warnings
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
warnings.simplefilter("ignore")
tokenizer = Tokenizer(TokenizerConfig())
before = tokenizer("a naïve dog's café").tolist()
child = os.fork()
if child == 0:
    os._exit(tokenizer("a naïve dog's café").tolist() != before or tokenizer.encode("cat") != [2368])
_, status = os.waitpid(child, 0)
assert status == 0 and tokenizer.encode("cat") == [2368]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_plain_text_is_tokenized_without_what_repairs_text():
    program = """
import sys
from pocketclip.data.tokenize import Tokenizer, TokenizerConfig
assert Tokenizer(TokenizerConfig()).encode("a cat") == [320, 2368]
assert "ftfy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


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
    other = Tokenizer(TokenizerConfig(vocab_size=516), merges=gzip.compress(b"#version\na b\nab c</w>\n"))
    for tokenizer in (FULL, other):
        assert tokenizer.encode("abc dog")
        pickled = pickle.dumps(tokenizer)
        assert len(pickled) < 1000  # no engine, no memory, no merges that every installation has
        again = pickle.loads(pickled)  # noqa: S301
        assert again.encode("abc dog") == tokenizer.encode("abc dog")
        assert (again.config, again.merges) == (tokenizer.config, tokenizer.merges)


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
