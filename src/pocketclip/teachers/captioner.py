"""Captioners: whatever writes synthetic captions for pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
        source: of a CoCa a path or `hf-hub:ORG/NAME[@REVISION]` (what `pocketclip.load` reads),
            `open_clip:MODEL/PRETRAINED`, `open_clip:MODEL/random` or `open_clip:FOLDER`;
            `transformers:ORG/NAME[@REVISION]` or `transformers:FOLDER`: an image-to-text model of transformers, such
            as a BLIP, a Florence-2 or a Qwen-VL; `python:MODULE:FUNCTION` for anything else:
            `FUNCTION(spec, device=..., precision=...)` of an importable module returns a `Captioner`.
        num_captions: captions of each picture.
        temperature: that logits are divided by; 0 takes the likeliest token always, and can write one caption only,
            or as many as there are beams.
        top_k: sample among the so many likeliest tokens; None for all.
        top_p: sample among the likeliest tokens that together have this share of probability, in (0, 1].
        max_length: tokens of a caption at most; it is cut there.
        seed: of the sampling.
        min_length: tokens before the end may come.
        beams: of a beam search, with temperature 0; 1 for none.
        beam_groups: groups of the beams that search one after the other (diverse beam search); divides `beams`.
        diversity_penalty: taken off a token for every beam of an earlier group that chose it at that place.
        length_penalty: power of the length that a search's sums are divided by.
        repetition_penalty: makes tokens that were written already less likely; 1 does not.
        no_repeat_ngram: so many tokens in a row are never written twice; 0 for no such rule.
        first_sentence: cut captions before their first full stop, as the published data sets were.
        request: what a model of transformers is asked, a sentence or one of Florence-2's tasks; None for a caption.
    """

    name: str
    source: str
    num_captions: int = 5
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 0.9
    max_length: int = 30
    seed: int = 0
    min_length: int = 0
    beams: int = 1
    beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    first_sentence: bool = False
    request: str | None = None

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
        if self.temperature == 0.0 and self.num_captions > max(self.beams, 1):
            raise ValueError(
                f"{who}: temperature 0 writes the same caption {self.num_captions} times: give num_captions 1"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"{who}: top_k must be at least 1, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"{who}: top_p must be in (0, 1], got {self.top_p}")
        self._check_search(who)

    def _check_search(self, who: str) -> None:
        if not 0 <= self.min_length <= self.max_length:
            raise ValueError(f"{who}: min_length must be 0 to max_length, got {self.min_length}")
        if self.beams < 1 or self.beam_groups < 1 or self.beams % self.beam_groups:
            raise ValueError(
                f"{who}: beams must be a multiple of beam_groups, got {self.beams} and {self.beam_groups}"
            )
        if self.beams > 1 and self.temperature != 0.0:
            raise ValueError(f"{who}: a search with {self.beams} beams draws nothing: give temperature 0")
        if not 0.0 < self.repetition_penalty < math.inf:
            raise ValueError(f"{who}: repetition_penalty must be above 0, got {self.repetition_penalty}")
        if not 0.0 <= self.diversity_penalty < math.inf or not math.isfinite(self.length_penalty):
            raise ValueError(
                f"{who}: diversity_penalty and length_penalty must be numbers, the first at least 0"
            )
        if self.no_repeat_ngram < 0:
            raise ValueError(f"{who}: no_repeat_ngram must be at least 0, got {self.no_repeat_ngram}")

    def to_json(self) -> dict[str, JsonValue]:
        """Every field, for a manifest."""
        return asdict(self)

    def finished(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What was written, as it is kept: cut where the spec says so, and without captions that say nothing."""
        if self.first_sentence:
            texts = [text.split(".")[0] for text in texts]
        return usable(texts)


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
        case "transformers":
            from pocketclip.teachers.captioner_transformers import build_transformers

            return build_transformers(spec, rest, device=device, precision=precision)
    from pocketclip.teachers.captioner_coca import build_coca

    return build_coca(spec, device=device, precision=precision)


def usable(texts: Sequence[str]) -> tuple[str, ...]:
    """The captions that say something, in order: white space is made single; what has no word, or says one word four
    times in a row, is left out."""
    cleaned = (" ".join(text.split()) for text in texts)
    return tuple(text for text in cleaned if _says_something(text))


def _says_something(text: str) -> bool:
    words = [word.lower() for word in _WORD.findall(text)]
    runs = zip(*(words[start:] for start in range(_STUTTER)), strict=False)
    return bool(words) and not any(len(set(run)) == 1 for run in runs)
