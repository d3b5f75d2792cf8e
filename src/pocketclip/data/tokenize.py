"""Byte-pair encoding: text to CLIP token ids, exactly as the public CLIP models were trained on.

Shapes: B texts, L context length.
"""

from __future__ import annotations

import gzip
import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import ftfy
import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as _Engine

START_OF_TEXT = "<start_of_text>"
END_OF_TEXT = "<end_of_text>"
_END_OF_WORD = "</w>"
_NUM_BYTE_TOKENS = 512  # each byte once inside a word, once at its end
_NUM_SPECIAL_TOKENS = 2

# Letters and numbers of Unicode 16 to 18 that older tables of the engine call symbols. Naming them in the
# pattern makes word splits independent of the Unicode version an engine (Rust, JavaScript) was built with.
_YOUNG_LETTERS = (
    "0558 058b-058c 088f 0c5c 0cdc 208f 209d-209f a7ce-a7cf a7d2 a7d4 a7dd a7e2 a7f1 ab6c-ab6d 107bb-107bf "
    "10940-10959 10ec5-10ec7 10ed9-10eee 11b0a 11db0-11ddb 11df1 16ea0-16eb8 16ebb-16ed3 16ff2-16ff3 "
    "187f8-187ff 18cd6-18cda 18d09-18d20 18d80-18df2 18e00-19191 191a0-191d2 1b123-1b128 1b168 1d6a6 "
    "1df1f-1df24 1df2b-1df81 1df90-1df96 1dfcd-1dfff 1e6c0-1e6de 1e6e0-1e6e2 1e6e4-1e6e5 1e6e7-1e6ed "
    "1e6f0-1e6f4 1e6fe-1e6ff 2b73a-2b73f 2b81e 2cea2-2cead 323b0-33479 3d000-3fc3f"
)
_YOUNG_NUMBERS = "11de0-11de9 1246f 12475-1247f 12550-12686 16ff4-16ff6"
# Under case folding the combining iota is neither a letter nor a symbol: the reference drops it.
_DROPPED = "0345"


def _character_class(ranges: str) -> str:
    return "".join("-".join(chr(int(end, 16)) for end in span.split("-")) for span in ranges.split())


def _word_pattern() -> str:
    """The reference's pattern with its case folding written out: only the long s folds to an ASCII letter."""
    letters, numbers = _character_class(_YOUNG_LETTERS), _character_class(_YOUNG_NUMBERS)
    specials = r"<[sſ]tart_of_text>|<end_of_text>"
    suffixes = "'[sſ]|'t|'re|'ve|'m|'ll|'d"
    symbols = rf"[^\s\p{{L}}\p{{N}}{letters}{numbers}{_character_class(_DROPPED)}]+"
    return rf"{specials}|{suffixes}|[\p{{L}}{letters}]+|[\p{{N}}{numbers}]|{symbols}"


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What decides token ids besides the merges.

    Attributes:
        vocab_size: number of ids, 514 (bytes only) to 49408 (CLIP's). A smaller one keeps the first merges;
            the last two ids are always the start and the end of text.
        context_length: L, tokens a text is padded or truncated to, start and end included; at least 2.
    """

    vocab_size: int = 49408
    context_length: int = 77

    def __post_init__(self) -> None:
        if self.vocab_size < _NUM_BYTE_TOKENS + _NUM_SPECIAL_TOKENS:
            raise ValueError(
                f"vocab_size is {self.vocab_size}: it must be at least 514 (all bytes, start and end)"
            )
        if self.context_length < 2:
            raise ValueError(
                f"context_length is {self.context_length}: it must be at least 2 (start and end)"
            )

    @property
    def num_merges(self) -> int:
        """Number of merges that `vocab_size` leaves room for."""
        return self.vocab_size - _NUM_BYTE_TOKENS - _NUM_SPECIAL_TOKENS


def clean(text: str) -> str:
    """Repair mojibake, unescape HTML twice, collapse white space, lower the case: CLIP's cleaning."""
    if not (
        text.isascii() and text.isprintable() and "&" not in text
    ):  # for the others both are the identity
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


class Tokenizer:
    """Text to token ids, identical to open_clip's `SimpleTokenizer` at the full vocabulary.

    Attributes:
        config: vocabulary size and context length.
        merges: the merges, gzip bytes of a text: one comment line, then one merge a line.
        sot_token_id: id of the start of a text, `vocab_size - 2`.
        eot_token_id: id of the end of a text, `vocab_size - 1` and the largest id.
    """

    def __init__(self, config: TokenizerConfig, *, merges: bytes | None = None) -> None:
        """Build the encoder.

        Args:
            config: vocabulary size and context length.
            merges: gzip bytes as described above; None takes the 48,894 merges shipped with the package.

        Raises:
            ValueError: the merges cannot be read or are fewer than the vocabulary needs.
        """
        self.config = config
        self.merges = _shipped_merges() if merges is None else merges
        self.sot_token_id = config.vocab_size - 2
        self.eot_token_id = config.vocab_size - 1
        pairs = _read_merges(self.merges)
        if len(pairs) < config.num_merges:
            raise ValueError(
                f"vocab_size {config.vocab_size} needs {config.num_merges} merges, there are {len(pairs)}: "
                f"use a vocab_size of at most {len(pairs) + _NUM_BYTE_TOKENS + _NUM_SPECIAL_TOKENS}"
            )
        self._words = pre_tokenizers.Split(Regex(_word_pattern()), behavior="removed", invert=True)
        self._engine = _build_engine(pairs[: config.num_merges], self._words)

    def __call__(
        self, texts: str | Sequence[str], context_length: int | None = None
    ) -> npt.NDArray[np.int64]:
        """Token ids of texts.

        Args:
            texts: one text or several.
            context_length: L; None takes the config's.

        Returns:
            int64 [B, L]: start, tokens, end, then zeros. A text that is too long is cut before its end mark.
        """
        texts = [texts] if isinstance(texts, str) else texts
        length = self.config.context_length if context_length is None else context_length
        if length < 2:
            raise ValueError(f"context_length is {length}: it must be at least 2 (start and end)")
        tokens_BL = np.zeros((len(texts), length), dtype=np.int64)
        for row, text in zip(tokens_BL, texts, strict=True):
            ids = self.encode(text)[: length - 2]
            row[0] = self.sot_token_id
            row[1 : len(ids) + 1] = ids
            row[len(ids) + 1] = self.eot_token_id
        return tokens_BL

    def encode(self, text: str) -> list[int]:
        """Ids of one text of any length, without start, end or padding."""
        if not isinstance(text, str):
            raise TypeError(f"a text to tokenize must be a str, not {type(text).__name__}")
        text = clean(text)
        if START_OF_TEXT not in text and END_OF_TEXT not in text:
            return self._engine.encode(text, add_special_tokens=False).ids
        return list(self._encode_around_specials(text))

    def _encode_around_specials(self, text: str) -> Iterator[int]:
        """A special text that stands as a word of its own becomes its one id; the rest is ordinary."""
        specials = {START_OF_TEXT: self.sot_token_id, END_OF_TEXT: self.eot_token_id}
        begin = 0
        for word, (start, stop) in self._words.pre_tokenize_str(text):
            if word in specials:
                yield from self._engine.encode(text[begin:start], add_special_tokens=False).ids
                yield specials[word]
                begin = stop
        yield from self._engine.encode(text[begin:], add_special_tokens=False).ids

    def to_json(self) -> str:
        """This tokenizer as a Hugging Face `tokenizers` file, for exported folders and other hosts.

        It cleans white space and case, adds start and end, truncates and pads. Hosts that do not repair
        mojibake and HTML first (`clean`) differ from this class on texts that need it.
        """
        host = _Engine.from_str(self._engine.to_str())
        host.normalizer = normalizers.Sequence(
            [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
        )
        host.add_special_tokens(
            [AddedToken(text, normalized=False, special=True) for text in (START_OF_TEXT, END_OF_TEXT)]
        )
        host.post_processor = processors.TemplateProcessing(
            single=f"{START_OF_TEXT} $A {END_OF_TEXT}",
            pair=None,
            special_tokens=[(START_OF_TEXT, self.sot_token_id), (END_OF_TEXT, self.eot_token_id)],
        )
        host.decoder = decoders.Sequence(
            [decoders.ByteLevel(), decoders.Replace(_END_OF_WORD, " "), decoders.Strip(" ", 0, 1)]
        )
        host.enable_truncation(self.config.context_length)
        host.enable_padding(pad_id=0, pad_token=_byte_alphabet()[0], length=self.config.context_length)
        return host.to_str()

    @classmethod
    def from_json(cls, text: str, context_length: int) -> Tokenizer:
        """The tokenizer that `to_json` wrote.

        Raises:
            ValueError: not JSON, not byte-pair encoding, or not the vocabulary its merges make.
        """
        try:
            model = json.loads(text)["model"]
            vocab, pairs = model["vocab"], tuple((left, right) for left, right in model["merges"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the tokenizer JSON holds no byte-pair encoding ({error!r}): export the model again"
            ) from error
        config = TokenizerConfig(
            vocab_size=len(pairs) + _NUM_BYTE_TOKENS + _NUM_SPECIAL_TOKENS, context_length=context_length
        )
        if vocab != _vocabulary(pairs):
            raise ValueError(
                "the tokenizer JSON numbers its tokens in another order than CLIP: export the model again"
            )
        if pairs == _read_merges(_shipped_merges())[: len(pairs)]:
            return cls(config)
        lines = "\n".join(["#version: tokenizer.json", *(f"{left} {right}" for left, right in pairs)])
        return cls(config, merges=gzip.compress(lines.encode(), mtime=0))


@lru_cache(maxsize=1)
def _shipped_merges() -> bytes:
    return files("pocketclip.data").joinpath("clip_merges.txt.gz").read_bytes()


@lru_cache(maxsize=2)
def _read_merges(merges: bytes) -> tuple[tuple[str, str], ...]:
    try:
        lines = gzip.decompress(merges).decode("utf-8").split("\n")[1:]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"the tokenizer's merges are not gzip of UTF-8 text: {error}") from error
    pairs = [tuple(line.split()) for line in lines if line]
    damaged = next((line for line, pair in enumerate(pairs, start=2) if len(pair) != 2), None)
    if damaged is not None:
        raise ValueError(f"line {damaged} of the tokenizer's merges is not a pair of tokens")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _byte_alphabet() -> list[str]:
    """The printable stand-in of each byte, in CLIP's order: printable Latin-1 first, then the others."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


def _vocabulary(pairs: Sequence[tuple[str, ...]]) -> dict[str, int]:
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(char + _END_OF_WORD for char in alphabet), *("".join(pair) for pair in pairs)]
    return {token: i for i, token in enumerate([*tokens, START_OF_TEXT, END_OF_TEXT])}


def _build_engine(pairs: Sequence[tuple[str, str]], words: pre_tokenizers.PreTokenizer) -> _Engine:
    model = models.BPE(vocab=_vocabulary(pairs), merges=list(pairs), end_of_word_suffix=_END_OF_WORD)
    engine = _Engine(model)
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return engine
