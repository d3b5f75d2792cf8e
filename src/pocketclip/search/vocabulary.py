"""Lists of words that come with the package, and their embeddings, worked out once for each model.

Shapes: P phrases, D embedding.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pocketclip.runtime.cache import remembered
from pocketclip.search.direction import mean
from pocketclip.search.prompts import prompts

if TYPE_CHECKING:
    from pocketclip.runtime import ExportedModel

_TYPE = np.dtype("<f4")


def word_list(name: Literal["labels", "background"]) -> tuple[str, ...]:
    """A list of the package: `labels` are everyday words, `background` what hardly any collection shows."""
    text = (files("pocketclip.search") / "words" / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(parse_list(text.splitlines()))


def parse_list(lines: Iterable[str]) -> list[str]:
    """Labels of a list, a line each; lines that begin with # are remarks, and repetitions are dropped."""
    labels = (" ".join(line.split()) for line in lines)
    return list(dict.fromkeys(label for label in labels if label and not label.startswith("#")))


def embedded(
    model: ExportedModel, phrases: Sequence[str], *, templates: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Unit vectors float32 [P, D] of phrases, each the mean over its prompts.

    They are kept in the user's cache: they depend on nothing but model and words, and a list of hundreds takes seconds.
    """
    texts = [prompts(phrase, templates) for phrase in phrases]
    question = {
        "embeddings": hashlib.sha256(repr(texts).encode()).hexdigest(),
        "model": model.manifest.digest,
        "dimensions": model.manifest.embed_dim,
    }

    def work_out() -> str:
        flat = model.embed_texts([text for some in texts for text in some])
        ends = np.cumsum([len(some) for some in texts])[:-1]
        rows_PD = np.stack([mean(part) for part in np.split(flat, ends)])
        return base64.b64encode(rows_PD.astype(_TYPE).tobytes()).decode()

    if not phrases:
        return np.empty((0, model.manifest.embed_dim), dtype=np.float32)
    kept = np.frombuffer(base64.b64decode(remembered(question, work_out)), dtype=_TYPE)
    return kept.reshape(len(phrases), model.manifest.embed_dim).astype(np.float32)
