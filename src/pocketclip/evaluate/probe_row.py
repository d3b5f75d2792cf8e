"""What a probe or a zero-shot video run found, as a row of a model's result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketclip import __version__
from pocketclip.data.sample import JsonValue
from pocketclip.evaluate.accuracy import hits, mean, mean_per_class_recall
from pocketclip.evaluate.book import queries_path
from pocketclip.evaluate.embedder import PixelEmbedder
from pocketclip.evaluate.resample import main_interval, write_queries
from pocketclip.evaluate.rows import Row, read_rows, write_rows

_LEVEL = 0.95


def classified(
    label_N: NDArray[np.int64],
    top_NK: NDArray[np.int64],
    *,
    key: str,
    dataset: str,
    embedder: PixelEmbedder,
    details: Mapping[str, JsonValue],
    seed: int,
    resamples: int,
) -> Row:
    """The row of a classification: acc1, acc5 where five classes are told, mean_per_class_recall; main is acc1.

    Args:
        label_N: [N] right classes.
        top_NK: [N, K] the likeliest classes, likeliest first.
        key: of the set.
        dataset: its name for people.
        embedder: the model.
        details: besides model, number of queries and interval.
        seed: of the bootstrap draws.
        resamples: their number.
    """
    acc1 = mean(hits(top_NK, label_N))
    queries = {"label": label_N, "top": top_NK}
    interval = main_interval("acc1", queries, seed=seed, resamples=resamples, level=_LEVEL)
    own: dict[str, JsonValue] = {
        "version": __version__,
        "model": embedder.facts.source,
        "digest": embedder.digest,
        "precision": "fp32",
        "main_metric": "acc1",
        "num_queries": len(label_N),
        "interval": {**asdict(interval), "level": _LEVEL, "resamples": resamples},
    }
    return Row(
        key=key,
        dataset=dataset,
        metrics={
            "acc1": acc1,
            "acc5": mean(hits(top_NK, label_N, k=5)) if top_NK.shape[1] >= 5 else None,
            "mean_per_class_recall": mean_per_class_recall(label_N, top_NK[:, 0]),
            "main_metric": acc1,
        },
        details=own | dict(details),
    )


def own_rows(out: Path | None, embedder: PixelEmbedder) -> tuple[Row, ...]:
    """The rows that a model's result file has already.

    Raises:
        ValueError: they are another model's.
        OSError: the file cannot be read.
    """
    rows = read_rows(out) if out is not None and out.is_file() else ()
    if any(row.details.get("digest") != embedder.digest for row in rows):
        raise ValueError(f"{out} holds results of another model: choose another --out, or remove it")
    return rows


def keep(
    out: Path,
    rows: Sequence[Row],
    queries: Mapping[str, Mapping[str, NDArray[np.int64]]],
    *,
    others: Sequence[Row],
) -> None:
    """Publishes rows in a result file, after what belongs to each, beside the others that were there."""
    for row in rows:
        write_queries(queries_path(out, row.key), queries[row.key])
    keys = {row.key for row in rows}
    write_rows(out, [*(row for row in others if row.key not in keys), *rows])
