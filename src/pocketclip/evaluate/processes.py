"""Several processes share the pictures of every set: each holds the models and takes the next piece.

Pieces are cut by the set alone, whole batches each, so that embeddings do not depend on how many processes there are.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from pocketclip.evaluate.embedder import Embedder, Evaluable, as_embedder
from pocketclip.evaluate.feed import Embedded, embed_rows
from pocketclip.evaluate.sets.item import PictureSet
from pocketclip.evaluate.sets.place import Wanted, open_set
from pocketclip.teachers.teacher import Precision

_PIECE_BATCHES = 8


@dataclass(frozen=True, kw_only=True)
class Crew:
    """Who embeds.

    Attributes:
        models: name -> what every process builds it from.
        device: where models run; several processes on "cuda" take the GPUs in turn.
        precision: what they compute in.
        batch_size: pictures a run of a network.
        threads: of each process, that read and decode.
        num_processes: 1 for this one alone.
    """

    models: Mapping[str, Evaluable]
    device: str
    precision: Precision
    batch_size: int
    threads: int
    num_processes: int = 1


class Embedding:
    """Embeds sets with the models of a crew, here or in processes of its own; use it in `with`.

    Args:
        crew: who embeds.
        embedders: the models as built in this process.
    """

    def __init__(self, crew: Crew, embedders: Mapping[str, Embedder]) -> None:
        self._crew = crew
        self._embedders = embedders
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Embedding:
        crew = self._crew
        if crew.num_processes > 1:
            context = multiprocessing.get_context("spawn")
            numbers = context.Queue()
            for number in range(crew.num_processes):
                numbers.put(number)
            self._pool = ProcessPoolExecutor(
                crew.num_processes, mp_context=context, initializer=_start, initargs=(crew, numbers)
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def embed(self, wanted: Wanted, pictures: PictureSet, *, names: Sequence[str]) -> Embedded:
        """Every picture of a set, by the named models.

        Raises:
            ValueError: a model cannot embed a picture.
            OSError: the set cannot be read.
        """
        total = len(pictures.items)
        with tqdm(
            total=total,
            desc=f"evaluate {wanted.task.key}",
            unit="picture",
            mininterval=0.1 if sys.stderr.isatty() else 10,
        ) as bar:
            if self._pool is None:
                return embed_rows(
                    {name: self._embedders[name] for name in names},
                    pictures,
                    range(total),
                    batch_size=self._crew.batch_size,
                    threads=self._crew.threads,
                    progress=bar.update,
                )
            step = self._crew.batch_size * _PIECE_BATCHES
            pieces = [range(start, min(start + step, total)) for start in range(0, total, step)]
            parts = []
            work = zip(*((wanted, piece, tuple(names)) for piece in pieces), strict=True)
            for piece, part in zip(pieces, self._pool.map(_embed_piece, *work), strict=True):
                parts.append(part)
                bar.update(len(piece))
            return _joined(parts, names=names)


@dataclass(kw_only=True)
class _Worker:
    """What a process holds: the crew, its models, and the set that it has open."""

    crew: Crew
    embedders: Mapping[str, Embedder]
    opened: tuple[Wanted, PictureSet] | None = None


_worker: _Worker | None = None


def _start(crew: Crew, numbers: multiprocessing.Queue) -> None:
    """Builds the models, once in every process."""
    global _worker  # noqa: PLW0603 - a process of a pool has no other place to keep what its initializer made
    number = numbers.get()
    device = crew.device
    if device == "cuda":
        device = f"cuda:{number % torch.cuda.device_count()}"
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // crew.num_processes))
    embedders = {
        name: as_embedder(model, name=name, device=device, precision=crew.precision)
        for name, model in crew.models.items()
    }
    _worker = _Worker(crew=crew, embedders=embedders)


def _embed_piece(wanted: Wanted, piece: range, names: tuple[str, ...]) -> Embedded:
    assert _worker is not None, "the pool's initializer has run"
    if _worker.opened is None or _worker.opened[0] != wanted:
        _worker.opened = (wanted, open_set(wanted))
    return embed_rows(
        {name: _worker.embedders[name] for name in names},
        _worker.opened[1],
        piece,
        batch_size=_worker.crew.batch_size,
        threads=_worker.crew.threads,
    )


def _joined(parts: Sequence[Embedded], *, names: Sequence[str]) -> Embedded:
    return Embedded(
        rows=np.concatenate([part.rows for part in parts]),
        images={
            name: np.concatenate(
                [rows for part in parts if len(rows := part.images[name])] or [np.empty((0, 0))]
            )
            for name in names
        },
        dropped=tuple(dropped for part in parts for dropped in part.dropped),
    )
