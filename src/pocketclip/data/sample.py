"""What a sample is: one picture, what people wrote about it, what machines wrote about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
"""File extensions (lower case, no dot) of the picture formats a shard holds."""

MAX_KEY_LENGTH = 90
"""Longest key: key and member suffix must fit the 100 bytes of a ustar member name."""

_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY_LENGTH}}}")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture with its captions.

    Attributes:
        key: unique in a data set; 1 to 90 letters, digits, "_" or "-".
        image: the encoded picture, byte for byte as stored.
        extension: format of `image`, one of `IMAGE_EXTENSIONS`.
        captions: ground truth, at least one; the first is the main one.
        synthetic: captioner name -> the captions it wrote.
        meta: anything else that is JSON (licence, source, ...).

    Raises:
        ValueError: a field breaks these rules; the sentence names the key.
    """

    key: str
    image: bytes = field(repr=False)
    extension: str
    captions: tuple[str, ...]
    synthetic: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    meta: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(
                f"sample key {self.key!r} must be 1 to {MAX_KEY_LENGTH} letters, digits, '_' or '-' "
                f"(no dot, slash or space)"
            )
        if self.extension not in IMAGE_EXTENSIONS:
            raise ValueError(
                f"sample {self.key}: extension {self.extension!r} is not one of {', '.join(IMAGE_EXTENSIONS)}"
            )
        if not self.image:
            raise ValueError(f"sample {self.key}: the picture has zero bytes")
        if not self.captions:
            raise ValueError(f"sample {self.key}: needs at least one caption")
        for text in self.texts():
            _check_text(text, key=self.key)
        try:
            json.dumps(self.meta, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"sample {self.key}: meta is not JSON ({error})") from error

    def texts(self) -> tuple[str, ...]:
        """All texts: captions, then synthetic ones by captioner name. The row order of text embeddings."""
        return (*self.captions, *(text for name in sorted(self.synthetic) for text in self.synthetic[name]))


def _check_text(text: str, *, key: str) -> None:
    if not text.strip():
        raise ValueError(f"sample {key}: a caption is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"sample {key}: caption {text!r} cannot be written as UTF-8") from error
