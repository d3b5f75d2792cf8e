"""Byte-pair encoding: text to CLIP token ids, exactly as the public CLIP models were trained on.

Shapes: B texts, L context length.
"""

from __future__ import annotations

import gzip
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, decoders, normalizers, processors

from pocketclip.data.words import (
    BREAK,
    END_OF_TEXT,
    END_OF_WORD,
    NUM_BYTE_TOKENS,
    NUM_SHIPPED_MERGES,
    NUM_SPECIAL_TOKENS,
    START_OF_TEXT,
    Engine,
    Words,
    byte_alphabet,
    read_merges,
    shipped_merges,
    token_bytes,
    vocabulary,
)

_MAX_TOGETHER = 1024  # texts that are encoded in one go: enough for numpy, little for memory


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
        if self.vocab_size < NUM_BYTE_TOKENS + NUM_SPECIAL_TOKENS:
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
        return self.vocab_size - NUM_BYTE_TOKENS - NUM_SPECIAL_TOKENS


def clean(text: str) -> str:
    """Repair mojibake, unescape HTML twice, collapse white space, lower the case: CLIP's cleaning."""
    if not _is_plain(text):
        from ftfy import fix_text  # 70 ms that most programs never need

        text = html.unescape(html.unescape(fix_text(text)))
    return " ".join(text.split()).lower()


def _is_plain(text: str) -> bool:
    """Whether there is nothing to repair or unescape."""
    return text.isascii() and text.isprintable() and "&" not in text


class Tokenizer:
    """Text to token ids, identical to open_clip's `SimpleTokenizer` at the full vocabulary.

    A tokenizer remembers the ids of words (up to 65,536 of them, about 10 MB), so that captions cost little. Threads
    may share it. Pickled, it leaves behind what it can build again; that happens when the first text comes.

    Attributes:
        config: vocabulary size and context length.
        sot_token_id: id of the start of a text, `vocab_size - 2`.
        eot_token_id: id of the end of a text, `vocab_size - 1` and the largest id.
    """

    def __init__(self, config: TokenizerConfig, *, merges: bytes | None = None) -> None:
        """Check that the merges make the vocabulary.

        Args:
            config: vocabulary size and context length.
            merges: gzip bytes of a text, one comment line, then one merge a line; None takes the 48,894 merges
                shipped with the package.

        Raises:
            ValueError: the merges cannot be read or are fewer than the vocabulary needs.
        """
        self.config = config
        self.sot_token_id = config.vocab_size - 2
        self.eot_token_id = config.vocab_size - 1
        self._own_merges = None if merges == shipped_merges() else merges
        num_merges = NUM_SHIPPED_MERGES if self._own_merges is None else len(read_merges(self._own_merges))
        if num_merges < config.num_merges:
            raise ValueError(
                f"vocab_size {config.vocab_size} needs {config.num_merges} merges, there are {num_merges}: "
                f"use a vocab_size of at most {num_merges + NUM_BYTE_TOKENS + NUM_SPECIAL_TOKENS}"
            )
        self._built: Words | None = None

    @property
    def merges(self) -> bytes:
        """Gzip bytes of a text: one comment line, then one merge a line; the vocabulary may use fewer."""
        return shipped_merges() if self._own_merges is None else self._own_merges

    @property
    def _words(self) -> Words:
        if self._built is None:  # two threads may both come here: twice the work, the same result
            self._built = Words(read_merges(self.merges)[: self.config.num_merges])
        return self._built

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_built": None}

    def __call__(
        self, texts: str | Sequence[str], context_length: int | None = None
    ) -> npt.NDArray[np.int64]:
        """Token ids of texts.

        Args:
            texts: one text or several.
            context_length: L; None takes the config's.

        Returns:
            int64 [B, L]: start, tokens, end, then zeros. A text that is too long is cut before its end mark.

        Raises:
            TypeError: something else than text.
            ValueError: a context length below 2.
        """
        texts = [texts] if isinstance(texts, str) else texts
        length = self.config.context_length if context_length is None else context_length
        if length < 2:
            raise ValueError(f"context_length is {length}: it must be at least 2 (start and end)")
        tokens_BL = np.zeros((len(texts), length), dtype=np.int64)
        for begin in range(0, len(texts), _MAX_TOGETHER):
            some = slice(begin, begin + _MAX_TOGETHER)
            self._fill(tokens_BL[some], self._encode(texts[some]))
        return tokens_BL

    def encode(self, text: str) -> list[int]:
        """Ids of one text of any length, without start, end or padding."""
        return self._encode([text])[:-1].tolist()

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, as it was cleaned: white space is single, and bytes that are no text are left out."""
        pieces = token_bytes(read_merges(self.merges)[: self.config.num_merges])
        text = b"".join(pieces[i] for i in ids).decode("utf-8", errors="ignore")
        return " ".join(text.split())

    def _encode(self, texts: Iterable[str]) -> npt.NDArray[np.intc]:
        """Ids of texts one after the other, `BREAK` after each."""
        cleaned = []
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"a text to tokenize must be a str, not {type(text).__name__}")
            cleaned.append(text.lower() if _is_plain(text) else clean(text))
        cleaned.append("")
        # No part of the reference's pattern reaches across white space, so words can be encoded one by one.
        words = " \n ".join(cleaned).split(" ")
        return np.frombuffer(b"".join(map(self._words.__getitem__, words)), dtype=np.intc)

    def _fill(self, tokens_BL: npt.NDArray[np.int64], ids: npt.NDArray[np.intc]) -> None:
        """Write each text's ids, as many as fit, between start and end into its row of zeros."""
        (num_texts, length) = tokens_BL.shape
        breaks_B = np.flatnonzero(ids == BREAK)
        begins_B = np.append(0, breaks_B[:-1] + 1)
        kept_B = np.minimum(breaks_B - begins_B, length - 2)
        # The k-th id of all that are kept comes from place `k + source` and goes to place `k + target`.
        kept_before_B = np.cumsum(kept_B) - kept_B
        k = np.arange(kept_B.sum())
        source = np.repeat(begins_B - kept_before_B, kept_B)
        target = np.repeat(np.arange(num_texts) * length + 1 - kept_before_B, kept_B)
        tokens_BL.reshape(-1)[k + target] = ids[k + source]
        tokens_BL[:, 0] = self.sot_token_id
        tokens_BL[np.arange(num_texts), kept_B + 1] = self.eot_token_id

    def to_json(self) -> str:
        """This tokenizer as a Hugging Face `tokenizers` file, for exported folders and other hosts.

        It cleans white space and case, adds start and end, truncates and pads. Hosts that do not repair
        mojibake and HTML first (`clean`) differ from this class on texts that need it.
        """
        host = Engine.from_str(self._words.engine.to_str())
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
            [decoders.ByteLevel(), decoders.Replace(END_OF_WORD, " "), decoders.Strip(" ", 0, 1)]
        )
        host.enable_truncation(self.config.context_length)
        host.enable_padding(pad_id=0, pad_token=byte_alphabet()[0], length=self.config.context_length)
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
            vocab_size=len(pairs) + NUM_BYTE_TOKENS + NUM_SPECIAL_TOKENS, context_length=context_length
        )
        if vocab != vocabulary(pairs):
            raise ValueError(
                "the tokenizer JSON numbers its tokens in another order than CLIP: export the model again"
            )
        if pairs == read_merges(shipped_merges())[: len(pairs)]:
            return cls(config)
        lines = "\n".join(["#version: tokenizer.json", *(f"{left} {right}" for left, right in pairs)])
        return cls(config, merges=gzip.compress(lines.encode(), mtime=0))
