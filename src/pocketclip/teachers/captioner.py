"""Captioners: whatever writes synthetic captions for pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

from pocketclip.data.sample import JsonValue
from pocketclip.teachers.teacher import Precision, plugged_function

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_WORD = re.compile(r"\w+")
_STUTTER = 4
"""So many times the same word in a row is no sentence."""


@dataclass(frozen=True, kw_only=True)
class CaptionerSpec:
    """Where a captioner is, and how it samples: plain data, from which every process builds its own captioner.

    Attributes:
        name: of its captions (`Sample.synthetic[name]`), by which training chooses; letters, digits, "-" and "_".
        source: `open_clip:MODEL/PRETRAINED`, `open_clip:MODEL/random`, `open_clip:FOLDER` or
            `hf-hub:ORG/NAME[@REVISION]` of a CoCa; `python:MODULE:FUNCTION` for anything else:
            `FUNCTION(spec, device=..., precision=...)` of an importable module returns a `Captioner`.
        num_captions: captions of each picture.
        temperature: that logits are divided by; 0 takes the likeliest token always, and can write one caption only.
        top_k: sample among the so many likeliest tokens; None for all.
        top_p: sample among the likeliest tokens that together have this share of probability, in (0, 1].
        max_length: tokens of a caption at most; it is cut there.
        seed: of the sampling.
    """

    name: str
    source: str
    num_captions: int = 5
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 0.9
    max_length: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"captioner name {self.name!r} must be letters, digits, '-' or '_'")
        who = f"captioner {self.name}"
        if not self.source or not isinstance(self.source, str):
            raise ValueError(
                f"{who}: source {self.source!r} must be a text such as open_clip:MODEL/PRETRAINED"
            )
        if self.num_captions < 1 or self.max_length < 1:
            raise ValueError(f"{who}: num_captions and max_length must be at least 1")
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(f"{who}: temperature must be a number of at least 0, got {self.temperature}")
        if self.temperature == 0.0 and self.num_captions > 1:
            raise ValueError(
                f"{who}: temperature 0 writes the same caption {self.num_captions} times: give num_captions 1"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"{who}: top_k must be at least 1, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"{who}: top_p must be in (0, 1], got {self.top_p}")


@runtime_checkable
class Captioner(Protocol):
    """Writes captions. What it writes for a picture depends on the picture, its key and the spec alone.

    Attributes:
        name: of its captions.
        digest: sha256 of its weights and configuration.
    """

    name: str
    digest: str

    def caption(self, images: Sequence[Image.Image], keys: Sequence[str]) -> list[tuple[str, ...]]:
        """Captions of RGB pictures of any size, by their samples' keys.

        Returns:
            For each picture up to `num_captions` captions; empty and degenerate ones are left out, so that there may
            be fewer, or none.
        """
        ...

    def describe(self) -> Mapping[str, JsonValue]:
        """What it is, as JSON for a manifest: everything that its captions depend on, the machine left out."""
        ...


def build_captioner(spec: CaptionerSpec, *, device: str = "cpu", precision: Precision = "fp32") -> Captioner:
    """Makes a captioner ready to write.

    Args:
        spec: which.
        device: where it runs: cpu, cuda, cuda:1, mps.
        precision: what it computes in.

    Raises:
        FileNotFoundError: no such file, folder or repository.
        ImportError: the source needs an extra that is not installed.
        OSError: weights cannot be downloaded.
        ValueError: the source is no captioner, or the device cannot be used.
    """
    kind, _, rest = spec.source.partition(":")
    match kind:
        case "python":
            make = plugged_function(rest, what=f"captioner {spec.name}")
            captioner = make(spec, device=device, precision=precision)
            if not isinstance(captioner, Captioner):
                raise ValueError(
                    f"captioner {spec.name}: {spec.source} returned a {type(captioner).__name__}, which lacks name, "
                    "digest, caption or describe"
                )
            return captioner
        case "open_clip" | "hf-hub":
            from pocketclip.teachers.captioner_coca import build_coca

            return build_coca(spec, device=device, precision=precision)
    raise ValueError(
        f"captioner {spec.name}: {spec.source!r} is none of open_clip:MODEL/PRETRAINED, open_clip:FOLDER, "
        "hf-hub:ORG/NAME and python:MODULE:FUNCTION"
    )


def usable(texts: Sequence[str]) -> tuple[str, ...]:
    """The captions that say something, in order: white space is made single; what has no word, or says one word four
    times in a row, is left out."""
    cleaned = (" ".join(text.split()) for text in texts)
    return tuple(text for text in cleaned if _says_something(text))


def _says_something(text: str) -> bool:
    words = [word.lower() for word in _WORD.findall(text)]
    runs = zip(*(words[start:] for start in range(_STUTTER)), strict=False)
    return bool(words) and not any(len(set(run)) == 1 for run in runs)
