"""Embed the splits with every model, rank, and report; a picture is read and decoded once for all models."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pocketclip.evaluate.embedder import Embedder, Evaluable, as_embedder, model_facts
from pocketclip.evaluate.feed import Embedded, default_threads, embed_rows
from pocketclip.evaluate.metrics import retrieval
from pocketclip.evaluate.results import EvaluateConfig, Report, Result, SplitFacts, score, split_bootstrap
from pocketclip.evaluate.sets.folders import open_packed
from pocketclip.evaluate.sets.item import PictureSet
from pocketclip.evaluate.split import split_facts


def evaluate(models: Mapping[str, Evaluable], data: Path, *, config: EvaluateConfig | None = None) -> Report:
    """Measure retrieval and n-way accuracy of models on splits of a packed folder.

    Each split is a gallery of its own: the texts are its distinct main captions, and a caption is right for
    every picture that has it.

    Args:
        models: name -> checkpoint path or name, loaded checkpoint, or any `Embedder` (an exported model).
        data: packed folder.
        config: which splits and how; None for the defaults.

    Returns:
        Scores in 0..1 with intervals, for every model on every split, in the given order.

    Raises:
        ValueError: no models, a missing or empty split, a checkpoint that cannot be used, embeddings that are
            not finite.
        OSError: a file that cannot be read.
    """
    config = config or EvaluateConfig()
    if not models:
        raise ValueError("there is no model to evaluate: name at least one checkpoint")
    opened = {split: open_packed(data, split=split) for split in config.splits}
    embedders = {name: as_embedder(model, name=name, device=config.device) for name, model in models.items()}
    splits: dict[str, SplitFacts] = {}
    results: list[Result] = []
    for split, pictures in opened.items():
        found = _embed_pictures(embedders, pictures, split=split, batch_size=config.batch_size)
        facts = split_facts(pictures, found.rows.tolist(), found.dropped, split=split, folder=data)
        bootstrap = split_bootstrap(facts, config)
        for name, embedder in embedders.items():
            texts = embed_captions(embedder, facts.texts, prompt=config.prompt, batch_size=config.batch_size)
            ranks = retrieval(
                found.images[name], texts, facts.relevant, name=f"model {name!r} on split {split!r}"
            )
            results.append(score(ranks, facts, model=name, split=split, config=config, bootstrap=bootstrap))
        splits[split] = facts
    return Report(
        data=str(data),
        config=config,
        models={name: model_facts(embedder) for name, embedder in embedders.items()},
        splits=splits,
        results=tuple(results),
    )


def embed_captions(
    embedder: Embedder, captions: Sequence[str], *, prompt: str, batch_size: int
) -> NDArray[np.float32]:
    """[M, D] unit-norm rows of captions put into the prompt's `{}`."""
    texts = [prompt.replace("{}", caption) for caption in captions]
    parts = [embedder.embed_texts(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
    return np.concatenate(parts)


def _embed_pictures(
    embedders: Mapping[str, Embedder], pictures: PictureSet, *, split: str, batch_size: int
) -> Embedded:
    """Every picture of a split by every model, with a progress bar."""
    total = len(pictures.items)
    with tqdm(
        total=total,
        desc=f"evaluate {split}",
        unit="picture",
        mininterval=0.1 if sys.stderr.isatty() else 10,
    ) as bar:
        return embed_rows(
            embedders,
            pictures,
            range(total),
            batch_size=batch_size,
            threads=default_threads(),
            progress=bar.update,
        )
