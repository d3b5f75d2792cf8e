"""Embeddings of prompts and captions, kept on disk under a hash of model and texts: ImageNet's are 80,000 texts.

C: classes, M: texts, T: templates, D: embedding.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pocketclip.data.publish import publish_file
from pocketclip.evaluate.embedder import Embedder, PixelEmbedder
from pocketclip.evaluate.prompts import filled

Rows = NDArray[np.float32]


class TextRows:
    """Text embeddings of one model.

    Args:
        embedder: the model.
        batch_size: texts a run of the network.
        cache: folder for what was computed; None, or a model without a digest, keeps it for this run only.
    """

    def __init__(self, embedder: Embedder, *, batch_size: int, cache: Path | None = None) -> None:
        self._embedder = embedder
        self._batch_size = batch_size
        self._cache = cache if isinstance(embedder, PixelEmbedder) else None
        self._digest = embedder.digest if isinstance(embedder, PixelEmbedder) else ""
        self._kept: dict[str, Rows] = {}

    def captions(self, texts: Sequence[str]) -> Rows:
        """[M, D] unit-norm rows of texts as they are."""
        return self._remember(("captions", texts), lambda: self._embed(texts, name="captions"))

    def classes(self, names: Sequence[str], templates: Sequence[str]) -> Rows:
        """[C, D] unit-norm rows: the mean over a class's prompts, brought to length 1 again.

        CLIP, arXiv 2103.00020, section 3.1.4.

        Args:
            names: of the classes.
            templates: prompts, `{c}` for the name.
        """
        return self._remember(("classes", names, templates), lambda: self._mean_rows(names, templates))

    def _mean_rows(self, names: Sequence[str], templates: Sequence[str]) -> Rows:
        classes = max(1, self._batch_size * 8 // len(templates))
        parts = []
        bar = _bar(len(names) * len(templates), name="prompts")
        for start in range(0, len(names), classes):
            some = names[start : start + classes]
            prompts = [text for name in some for text in filled(templates, name)]
            rows = self._embed(prompts, bar=bar).reshape(len(some), len(templates), -1).mean(axis=1)
            parts.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        bar.close()
        return np.concatenate(parts)

    def _embed(self, texts: Sequence[str], *, name: str = "", bar: tqdm | None = None) -> Rows:
        own = _bar(len(texts), name=name) if bar is None else bar
        parts = []
        for start in range(0, len(texts), self._batch_size):
            batch = texts[start : start + self._batch_size]
            parts.append(np.asarray(self._embedder.embed_texts(batch), dtype=np.float32))
            own.update(len(batch))
        if bar is None:
            own.close()
        return np.concatenate(parts)

    def _remember(self, what: tuple[object, ...], make: Callable[[], Rows]) -> Rows:
        key = hashlib.sha256(json.dumps([self._digest, *what]).encode()).hexdigest()
        if key not in self._kept:
            self._kept[key] = self._from_disk(key, make)
        return self._kept[key]

    def _from_disk(self, key: str, make: Callable[[], Rows]) -> Rows:
        path = None if self._cache is None else self._cache / f"{key[:32]}.npy"
        if path is not None and path.is_file():
            try:
                return np.load(path, allow_pickle=False)
            except (ValueError, EOFError):  # damaged: computed again
                path.unlink()
        rows = make()
        if path is not None:
            with publish_file(path) as file:
                np.save(file, rows, allow_pickle=False)
        return rows


def _bar(total: int, *, name: str) -> tqdm:
    return tqdm(
        total=total,
        desc=name,
        unit="text",
        leave=False,
        mininterval=0.1 if sys.stderr.isatty() else 10,
    )
