"""What is found out about a sample without a network: its size, its caption, a hash of its picture."""

# Shape suffixes: H W C pixels.

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pocketclip.data.foreign.candidate import Candidate
from pocketclip.data.index import Dropped
from pocketclip.data.picture import decode
from pocketclip.data.preprocess import Preprocess
from pocketclip.data.sample import JsonValue, Sample
from pocketclip.data.tokenize import Tokenizer
from pocketclip.engine import Item
from pocketclip.filter.language import code_number
from pocketclip.filter.phash import phash


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What to measure.

    Attributes:
        meta: numbers of the details that become columns.
        words: on the list, in lower case; None for no list.
        detect: gives a caption's language.
        tokenizer: counts tokens.
        hash_pictures: compute perceptual hashes.
    """

    meta: tuple[str, ...]
    words: frozenset[str] | None
    detect: Callable[[str], str]
    tokenizer: Tokenizer
    hash_pictures: bool


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A row before any teacher has seen it.

    Attributes:
        key: of the sample; what its reader calls it, where there is no sample.
        captions: ground truth, the main one first; none of what cannot be used.
        pixels: as each way of preprocessing makes them, uint8 [size, size, 3].
        values: of the columns that need no network.
        reason: why the row has no scores; None where it can have them.
    """

    key: str
    captions: tuple[str, ...] = ()
    pixels: tuple[np.ndarray, ...] = field(default=(), repr=False)
    values: dict[str, int | float]
    reason: str | None = None


def measure(item: Item, *, ways: Sequence[Preprocess], measures: Measures) -> Measured:
    """Measures one thing that a unit offers.

    Args:
        item: a sample, a candidate, or what a reader had to drop.
        ways: of preprocessing, one for each kind of pixels that teachers take.
        measures: what to find out.
    """
    if isinstance(item, Dropped):
        values = _unknown(measures) | {"id": key_number(item.source)}
        return Measured(key=item.source, values=values, reason=item.reason)
    values = _unknown(measures) | {"id": key_number(item.key)} | _of_details(item, measures)
    if item.captions:
        values |= _of_caption(item.captions[0], measures)
    try:
        image = decode(item.image, name=item.key)
        if not item.captions or not item.captions[0].strip():
            raise ValueError(f"{item.key}: there is no caption")
    except ValueError as error:
        return Measured(key=item.key, values=values, reason=str(error))
    values |= {"width": image.width, "height": image.height}
    if measures.hash_pictures:
        values["phash"] = _signed(phash(image))
    pixels = tuple(way.pixels(image) for way in ways)
    return Measured(key=item.key, captions=tuple(item.captions), pixels=pixels, values=values)


def column_types(measures: Measures) -> dict[str, type[np.generic]]:
    """Names and types of the columns that `measure` fills."""
    types: dict[str, type[np.generic]] = {"id": np.int64}
    types |= dict.fromkeys(("width", "height", "chars", "words", "tokens", "language"), np.int32)
    if measures.words is not None:
        types["listed"] = np.int32
    if measures.hash_pictures:
        types["phash"] = np.int64
    return types | {f"meta/{name}": np.float32 for name in measures.meta}


def key_number(key: str) -> int:
    """The first eight bytes of a key's sha256, as a signed number: what ties are broken and subsets drawn by."""
    return int.from_bytes(hashlib.sha256(key.encode(errors="surrogatepass")).digest()[:8], signed=True)


def _unknown(measures: Measures) -> dict[str, int | float]:
    values: dict[str, int | float] = {
        name: math.nan if kind is np.float32 else 0 for name, kind in column_types(measures).items()
    }
    return values


def _of_caption(caption: str, measures: Measures) -> dict[str, int | float]:
    words = caption.split()
    values: dict[str, int | float] = {
        "chars": len(caption),
        "words": len(words),
        "tokens": len(measures.tokenizer.encode(caption)),
        "language": code_number(measures.detect(" ".join(words))),
    }
    if measures.words is not None:
        values["listed"] = sum(word.lower() in measures.words for word in words)
    return values


def _of_details(item: Sample | Candidate, measures: Measures) -> dict[str, int | float]:
    return {
        f"meta/{name}": _number(item.meta[name])
        for name in measures.meta
        if isinstance(item.meta.get(name), int | float)
    }


def _number(value: JsonValue) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
