"""Teachers: whatever turns pictures and captions into embeddings worth learning from."""

# Shape suffixes: B pictures or captions, H W C pixels, D dimensions of an embedding.

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.data.sample import JsonValue

Precision = Literal["fp32", "bf16", "fp16"]
"""What a teacher computes in: float32, or automatic mixed precision. What it returns is float32 always."""

SOURCES = """\
a checkpoint FILE or hub FOLDER (what `pocketclip.load` takes), open_clip:MODEL/PRETRAINED, open_clip:MODEL/random, \
open_clip:FOLDER, hf-hub:ORG/NAME, transformers:ORG/NAME, transformers:FOLDER or python:MODULE:FUNCTION"""

_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Where a teacher is, and how it counts: plain data, from which every process builds its own teacher.

    Attributes:
        name: in the ensemble; letters, digits, "-" and "_".
        source: what it is:
            a path: all that `pocketclip.load` reads;
            `open_clip:MODEL/PRETRAINED`: a model of open_clip by its name with a tag or a file of weights, for
            instance `open_clip:ViT-L-14/openai`; the tag `random` means random weights of seed 0, for measurements;
            `open_clip:FOLDER` and `hf-hub:ORG/NAME[@REVISION]`: a folder or a repository in open_clip's layout (a
            repository of pocketclip's is read by `pocketclip.load`);
            `transformers:ORG/NAME[@REVISION]` or `transformers:FOLDER`: a CLIP, SigLIP or SigLIP 2 of transformers;
            `python:MODULE:FUNCTION`: anything else; `FUNCTION(spec, device=..., precision=..., compiled=...)` of an
            importable module returns a `Teacher`.
        logit_scale: the inverse temperature to distil it at; None takes the one it learned.
    """

    name: str
    source: str
    logit_scale: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"teacher name {self.name!r} must be letters, digits, '-' or '_'")
        if not self.source or not isinstance(self.source, str):
            raise ValueError(f"teacher {self.name}: source {self.source!r} must be a text: {SOURCES}")
        if self.logit_scale is not None and not 0.0 < self.logit_scale < math.inf:
            raise ValueError(
                f"teacher {self.name}: logit_scale must be a positive number, got {self.logit_scale}"
            )


@runtime_checkable
class Teacher(Protocol):
    """One of an ensemble. Embeddings are float32 [B, D] of length 1; a row depends on its own input alone.

    Attributes:
        record: name, width, logit scale and digest, as stored with the embeddings.
        image_px: side of the pictures it takes, pixels.
    """

    record: TeacherRecord
    image_px: int

    def encode_image(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """Embeds uint8 RGB pictures of `image_px` x `image_px`.

        Raises:
            EncodeError: some pictures have no embedding; it names their rows.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds captions.

        Raises:
            EncodeError: some captions have no embedding; it names their rows.
        """
        ...

    def describe(self) -> Mapping[str, JsonValue]:
        """What it is, as JSON for a manifest: everything that its embeddings depend on, the machine left out."""
        ...


class EncodeError(ValueError):
    """Some rows of a batch have no embedding: a text breaks the tokenizer, or a result is not finite.

    Attributes:
        reasons: row of the batch -> what is wrong with it. The other rows may be encoded again without these.
    """

    def __init__(self, teacher: str, reasons: Mapping[int, str]) -> None:
        self.reasons = dict(reasons)
        self._teacher = teacher
        first = next(iter(self.reasons.values()))
        more = f" (and {len(reasons) - 1} more of this batch)" if len(reasons) > 1 else ""
        super().__init__(f"teacher {teacher}: {first}{more}")

    def __reduce__(self) -> tuple[type[EncodeError], tuple[str, dict[int, str]]]:
        """Picklable, so that it crosses processes."""
        return EncodeError, (self._teacher, self.reasons)


def build_teacher(
    spec: TeacherSpec, *, device: str = "cpu", precision: Precision = "fp32", compiled: bool = False
) -> Teacher:
    """Makes a teacher ready to encode.

    Args:
        spec: which.
        device: where it runs: cpu, cuda, cuda:1, mps.
        precision: what it computes in; its embeddings are float32, brought to length 1 in float32, in any case.
        compiled: compile its towers with torch.compile, which takes a minute at the first batch of a shape.

    Raises:
        FileNotFoundError: no such file, folder or repository.
        ImportError: the source needs an extra that is not installed.
        OSError: weights cannot be downloaded.
        ValueError: the source, its weights or the device cannot be used.
    """
    kind, separator, rest = spec.source.partition(":")
    if separator and kind == "python":
        return _plugged(spec, rest, device=device, precision=precision, compiled=compiled)
    from pocketclip.teachers.towers import TowerTeacher

    match kind if separator else "":
        case "open_clip":
            from pocketclip.teachers.from_open_clip import open_clip_towers

            towers = open_clip_towers(spec, rest)
        case "hf-hub":
            from pocketclip.teachers.from_open_clip import hub_towers

            towers = hub_towers(spec, rest)
        case "transformers":
            from pocketclip.teachers.from_transformers import transformers_towers

            towers = transformers_towers(spec, rest)
        case _:
            from pocketclip.teachers.from_checkpoint import checkpoint_towers

            towers = checkpoint_towers(spec)
    return TowerTeacher(spec, towers, device=device, precision=precision, compiled=compiled)


def _plugged(spec: TeacherSpec, place: str, *, device: str, precision: Precision, compiled: bool) -> Teacher:
    """What the user's own function makes of a spec."""
    make = plugged_function(place, what=f"teacher {spec.name}")
    teacher = make(spec, device=device, precision=precision, compiled=compiled)
    if not isinstance(teacher, Teacher):
        raise ValueError(
            f"teacher {spec.name}: python:{place} returned a {type(teacher).__name__}, which lacks record, image_px, "
            "encode_image, encode_text or describe"
        )
    return teacher


def plugged_function(place: str, *, what: str):  # noqa: ANN201
    """The function that `MODULE:FUNCTION` names.

    Raises:
        ValueError: there is no such module or function, or the text is not of that form.
    """
    module, separator, name = place.partition(":")
    if not separator or not module or not name:
        raise ValueError(f"{what}: python:{place} is not of the form python:MODULE:FUNCTION")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"{what}: python:{place} cannot be imported ({error}): check PYTHONPATH") from error
