"""One model's results on disk: the result file, and beside it what belongs to each result.

results.jsonl
results.files/queries/KEY.npz      per query, for paired comparisons
results.files/classes/KEY.csv      per class
results.files/confusion/KEY.png
results.files/texts/HASH.npy       embeddings of prompts and captions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pocketclip import __version__
from pocketclip.data.sample import JsonValue
from pocketclip.evaluate.confusion import confusion_matrix, draw_confusion, write_class_table
from pocketclip.evaluate.embedder import Embedder, PixelEmbedder, model_facts
from pocketclip.evaluate.feed import Embedded
from pocketclip.evaluate.resample import main_interval, num_queries, write_queries
from pocketclip.evaluate.rows import Row, read_rows, write_rows
from pocketclip.evaluate.score import Scored, score
from pocketclip.evaluate.sets.item import PictureSet
from pocketclip.evaluate.tasks import Task
from pocketclip.evaluate.texts import TextRows

_SCALE = 100.0
"""CLIP's, where a model does not tell its own."""


class Book:
    """Scores one model and keeps its results.

    Args:
        name: of the model.
        embedder: the model.
        path: result file; None keeps nothing on disk.
        precision: what the model computes in.
        batch_size: texts a run of the network.
        resamples: of the bootstrap.
        level: share of them inside an interval.
        seed: of the draws.

    Raises:
        ValueError: the file holds results of another model.
        OSError: it cannot be read.
    """

    def __init__(
        self,
        name: str,
        embedder: Embedder,
        *,
        path: Path | None,
        precision: str,
        batch_size: int,
        resamples: int,
        level: float,
        seed: int,
    ) -> None:
        self._name = name
        self._path = path
        self._precision = precision
        self._resamples, self._level, self._seed = resamples, level, seed
        self._files = None if path is None else path.with_name(f"{path.stem}.files")
        self._digest = embedder.digest if isinstance(embedder, PixelEmbedder) else ""
        self._source = model_facts(embedder).source
        self._scale = embedder.logit_scale if isinstance(embedder, PixelEmbedder) else _SCALE
        cache = None if self._files is None else self._files / "texts"
        self._texts = TextRows(embedder, batch_size=batch_size, cache=cache)
        self._rows: dict[str, Row] = {}
        if path is not None and path.is_file():
            self._rows = {row.key: self._own(row) for row in read_rows(path)}

    def has(self, task: Task, pictures: PictureSet) -> bool:
        """Whether the result of a set is there, from the same model, pictures and precision."""
        row = self._rows.get(task.key)
        return row is not None and bool(self._digest) and row.details.get("data") == self._data(pictures)

    def add(self, task: Task, pictures: PictureSet, found: Embedded) -> None:
        """Scores the model on a set and publishes the result: what belongs to it first, its row last.

        Raises:
            SetError: the set lacks what its metrics need.
            ValueError: embeddings that are not finite.
            PublishError: the result cannot be written.
        """
        scored = score(
            task,
            pictures,
            found.rows,
            found.images[self._name],
            self._texts,
            logit_scale=self._scale,
            name=f"model {self._name!r} on {task.name}",
        )
        if self._files is not None:
            self._write_files(self._files, task, scored)
        self._rows[task.key] = Row(
            key=task.key,
            dataset=task.name,
            metrics=dict(scored.metrics),
            details=self._details(task, pictures, found, scored),
        )
        if self._path is not None:
            write_rows(self._path, self._rows.values())

    def of(self, tasks: Sequence[Task]) -> tuple[Row, ...]:
        """Results in the order asked."""
        return tuple(self._rows[task.key] for task in tasks if task.key in self._rows)

    def _details(
        self, task: Task, pictures: PictureSet, found: Embedded, scored: Scored
    ) -> dict[str, JsonValue]:
        """What a row says besides its metrics."""
        details: dict[str, JsonValue] = {
            "version": __version__,
            "model": self._source,
            "digest": self._digest,
            "precision": self._precision,
            "data": self._data(pictures),
            "num_pictures": len(found.rows),
            "dropped": [f"{one.source}: {one.reason}" for one in (*pictures.dropped, *found.dropped)],
        }
        if scored.queries and task.main_metric is not None:
            interval = main_interval(
                task.main_metric,
                scored.queries,
                seed=self._seed,
                resamples=self._resamples,
                level=self._level,
            )
            details["main_metric"] = task.main_metric
            details["num_queries"] = num_queries(scored.queries)
            details["interval"] = {**asdict(interval), "level": self._level, "resamples": self._resamples}
        if scored.calibration_error is not None:
            details["calibration_error"] = scored.calibration_error
        if scored.classes is not None:
            details["num_classes"] = len(scored.classes.names)
            details["num_templates"] = len(scored.classes.templates)
        return details

    def _data(self, pictures: PictureSet) -> str:
        """What a result depends on besides the model."""
        return f"{pictures.digest}:{self._precision}"

    def _own(self, row: Row) -> Row:
        if not self._digest or row.details.get("digest") != self._digest:
            whose = row.details.get("model") or "somebody else's evaluation"
            raise ValueError(
                f"{self._path} holds results of another model ({whose}), not of {self._name}: choose another --out, or "
                "remove it"
            )
        return row

    def _write_files(self, files: Path, task: Task, scored: Scored) -> None:
        name = file_name(task.key)
        if scored.queries:
            write_queries(files / "queries" / f"{name}.npz", scored.queries)
        if scored.classes is None or scored.confidence is None:
            return
        label = scored.queries["label"].astype(np.int64)
        predicted = scored.queries["top"][:, 0].astype(np.int64)
        names = scored.classes.names
        matrix = confusion_matrix(label, predicted, num_classes=len(names))
        total = np.bincount(label, minlength=len(names))
        confidence = np.bincount(label, weights=scored.confidence, minlength=len(names)) / np.maximum(
            total, 1
        )
        write_class_table(files / "classes" / f"{name}.csv", matrix, names, confidence_C=confidence)
        title = f"{task.name}: {self._name}"
        draw_confusion(files / "confusion" / f"{name}.png", matrix, names, title=title)


def file_name(key: str) -> str:
    """A task's key as the name of a file."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in key)


def queries_path(results: Path, key: str) -> Path:
    """Where what a task kept of every query is, beside a result file; see `resample.read_queries`."""
    return results.with_name(f"{results.stem}.files") / "queries" / f"{file_name(key)}.npz"
