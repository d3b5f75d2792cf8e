"""What a source offers, and the check that makes a sample of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from pocketclip.data.index import Dropped
from pocketclip.data.picture import decode, probe
from pocketclip.data.sample import IMAGE_EXTENSIONS, JsonValue, Sample


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a source offers; nothing is checked yet.

    Attributes:
        source: names it to a person: a path, or "file: member or row".
        split: where it goes.
        key, image, captions, synthetic, meta: as in `Sample`; the picture may be of any format.
    """

    source: str
    split: str
    key: str
    image: bytes = field(repr=False)
    captions: tuple[str, ...]
    synthetic: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    meta: Mapping[str, JsonValue] = field(default_factory=dict)


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) that depends on the texts alone: the same on every machine, run and version."""
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def admit(candidate: Candidate) -> Sample | Dropped:
    """Decodes and checks one candidate.

    A jpg, png or webp keeps its bytes; any other format is stored again as PNG (first frame, RGB).

    Returns:
        The sample, or why there is none.
    """
    try:
        picture = decode(candidate.image, name=candidate.source)
        extension, _, _ = probe(candidate.image, name=candidate.source)
        image = candidate.image
        if extension not in IMAGE_EXTENSIONS:
            file = io.BytesIO()
            picture.save(file, format="PNG")
            extension, image = "png", file.getvalue()
        return Sample(
            key=candidate.key,
            image=image,
            extension=extension,
            captions=candidate.captions,
            synthetic=candidate.synthetic,
            meta=candidate.meta,
        )
    except ValueError as error:
        return Dropped(source=candidate.source, reason=str(error).removeprefix(f"{candidate.source}: "))
