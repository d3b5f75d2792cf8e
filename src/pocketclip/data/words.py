"""Words to byte-pair ids: the merges, the exact engine, and what was encoded before."""

from __future__ import annotations

import gzip
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files

from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Engine

START_OF_TEXT = "<start_of_text>"
END_OF_TEXT = "<end_of_text>"
END_OF_WORD = "</w>"
NUM_BYTE_TOKENS = 512  # each byte once inside a word, once at its end
NUM_SPECIAL_TOKENS = 2
NUM_SHIPPED_MERGES = 48_894

BREAK = -1
"""What stands for "\\n" among ids; cleaned text has none, so it can separate texts."""

_MAX_REMEMBERED = 65_536  # words, about 10 MB
_MAX_REMEMBERED_CHARACTERS = 40  # longer ones are rarely seen twice

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


def _part_pattern() -> str:
    """The reference's pattern with its case folding written out: only the long s folds to an ASCII letter."""
    letters, numbers = _character_class(_YOUNG_LETTERS), _character_class(_YOUNG_NUMBERS)
    specials = r"<[sſ]tart_of_text>|<end_of_text>"
    suffixes = "'[sſ]|'t|'re|'ve|'m|'ll|'d"
    symbols = rf"[^\s\p{{L}}\p{{N}}{letters}{numbers}{_character_class(_DROPPED)}]+"
    return rf"{specials}|{suffixes}|[\p{{L}}{letters}]+|[\p{{N}}{numbers}]|{symbols}"


# The same on lower-case ASCII without "<", where no special text can stand.
_ascii_parts = re.compile(r"[a-z]+|[0-9]|'(?:s|t|re|ve|m|ll|d)|[^\sa-z0-9]+").findall


class Words(dict[str, bytes]):
    """A word to its ids, native int32 in bytes; a word is cleaned text without white space ("dog's,").

    Words that are looked up are remembered, as far as memory is bounded: when full, all are forgotten. Threads may
    share it.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Build the engine of these merges; the ids after theirs are the start and the end of a text."""
        super().__init__()
        vocab = vocabulary(pairs)
        self._specials = {text: vocab[text] for text in (START_OF_TEXT, END_OF_TEXT)}
        self._model = models.BPE(vocab=vocab, merges=list(pairs), end_of_word_suffix=END_OF_WORD)
        self._split = pre_tokenizers.Split(Regex(_part_pattern()), behavior="removed", invert=True)
        self.engine = Engine(self._model)
        self.engine.pre_tokenizer = pre_tokenizers.Sequence(
            [self._split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def __missing__(self, word: str) -> bytes:
        if word.isascii() and word.isprintable() and "<" not in word:
            ids = array("i", self._encode_ascii(word)).tobytes()
        else:
            ids = array("i", [BREAK] if word == "\n" else self.encode(word)).tobytes()
        if len(word) <= _MAX_REMEMBERED_CHARACTERS:
            if len(self) >= _MAX_REMEMBERED:
                self.clear()
            self[word] = ids
        return ids

    def _encode_ascii(self, word: str) -> Iterator[int]:
        # Printable ASCII stands for itself in the alphabet of bytes, so the model can be asked directly.
        tokenize = self._model.tokenize
        return (token.id for part in _ascii_parts(word) for token in tokenize(part))

    def encode(self, word: str) -> list[int]:
        """Ids of any word, by the engine. A special text that stands as a part of its own becomes its one id."""
        if START_OF_TEXT not in word and END_OF_TEXT not in word:
            return self.engine.encode(word, add_special_tokens=False).ids
        ids: list[int] = []
        begin = 0
        for part, (start, stop) in self._split.pre_tokenize_str(word):
            if part in self._specials:
                ids += self.engine.encode(word[begin:start], add_special_tokens=False).ids
                ids.append(self._specials[part])
                begin = stop
        return ids + self.engine.encode(word[begin:], add_special_tokens=False).ids


@lru_cache(maxsize=1)
def shipped_merges() -> bytes:
    """The `NUM_SHIPPED_MERGES` merges that come with the package: gzip of a text, see `read_merges`."""
    return files("pocketclip.data").joinpath("clip_merges.txt.gz").read_bytes()


@lru_cache(maxsize=2)
def read_merges(merges: bytes) -> tuple[tuple[str, str], ...]:
    """Pairs of tokens in the order in which they merge.

    Args:
        merges: gzip of UTF-8 text: one comment line, then one merge a line, its two tokens apart by white space.

    Raises:
        ValueError: not that; the sentence names the line.
    """
    try:
        lines = gzip.decompress(merges).decode("utf-8").split("\n")[1:]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"the tokenizer's merges are not gzip of UTF-8 text: {error}") from error
    pairs = [tuple(line.split()) for line in lines if line]
    damaged = next((line for line, pair in enumerate(pairs, start=2) if len(pair) != 2), None)
    if damaged is not None:
        raise ValueError(f"line {damaged} of the tokenizer's merges is not a pair of tokens")
    return tuple((pair[0], pair[1]) for pair in pairs)


def byte_alphabet() -> list[str]:
    """The printable stand-in of each byte, in CLIP's order: printable Latin-1 first, then the others."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


def vocabulary(pairs: Sequence[tuple[str, ...]]) -> dict[str, int]:
    """Token -> id: bytes, bytes at the end of a word, merges, start and end of text."""
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(char + END_OF_WORD for char in alphabet), *("".join(pair) for pair in pairs)]
    return {token: i for i, token in enumerate([*tokens, START_OF_TEXT, END_OF_TEXT])}


@lru_cache(maxsize=2)
def token_bytes(pairs: tuple[tuple[str, str], ...]) -> tuple[bytes, ...]:
    """What each id stands for: bytes, with a space at the end of a word; start and end of text stand for nothing."""
    alphabet = byte_alphabet()
    hidden = iter(sorted(set(range(256)) - {ord(char) for char in alphabet if ord(char) < 256}))
    byte_of = {char: ord(char) if ord(char) < 256 else next(hidden) for char in alphabet}
    tokens = list(vocabulary(pairs))[:-NUM_SPECIAL_TOKENS]
    inside = [(token.removesuffix(END_OF_WORD), token.endswith(END_OF_WORD)) for token in tokens]
    written = [bytes(byte_of[char] for char in text) + b" " * ends for text, ends in inside]
    return (*written, *[b""] * NUM_SPECIAL_TOKENS)
