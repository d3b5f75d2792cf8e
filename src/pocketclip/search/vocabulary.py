"""Lists of words that come with the package, and their embeddings, worked out once for each model.

Shapes: P phrases, D embedding.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pocketclip.runtime.cache import remembered
from pocketclip.search.direction import mean
from pocketclip.search.prompts import TEMPLATES, prompts, put

if TYPE_CHECKING:
    from pocketclip.runtime import ExportedModel

_TYPE = np.dtype("<f4")
_EVERY = 10  # word of the labels tells whether a template is understood
_UNDERSTOOD = 0.8  # share of words that must be


def word_list(name: Literal["labels", "background"]) -> tuple[str, ...]:
    """A list of the package: `labels` are everyday words, `background` what hardly any collection shows."""
    text = (files("pocketclip.search") / "words" / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(parse_list(text.splitlines()))


def parse_list(lines: Iterable[str]) -> list[str]:
    """Labels of a list, a line each; lines that begin with # are remarks, and repetitions are dropped."""
    labels = (" ".join(line.split()) for line in lines)
    return list(dict.fromkeys(label for label in labels if label and not label.startswith("#")))


def read_by(model: ExportedModel, templates: Sequence[str] = TEMPLATES) -> tuple[str, ...]:
    """Those templates that a model understands: words in them still mean the words.

    A word in a template must be nearer to the bare word than to other words, for most words of a small list. A model
    whose training captions were never sentences fails that, and finds much less with templates (docs/benchmarks.md,
    "Prompts").
    """
    words = word_list("labels")[::_EVERY]
    question = {"templates": list(templates), "words": list(words), "model": model.manifest.digest}

    def work_out() -> str:
        bare_PD = model.embed_texts(words)
        kept = []
        for template in templates:
            put_PD = model.embed_texts([put(word, template) for word in words])
            right = (put_PD @ bare_PD.T).argmax(axis=1) == np.arange(len(words))
            if right.mean() >= _UNDERSTOOD:
                kept.append(template)
        return json.dumps(kept)

    return tuple(json.loads(remembered(question, work_out)))


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
