"""Models on tasks: set by set, each result published before the next set begins, so that a killed run goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketclip.evaluate.book import Book
from pocketclip.evaluate.embedder import Evaluable, as_embedder
from pocketclip.evaluate.feed import default_threads
from pocketclip.evaluate.processes import Crew, Embedding
from pocketclip.evaluate.rows import Row
from pocketclip.evaluate.sets.item import SetError
from pocketclip.evaluate.sets.place import Missing, Wanted, open_set
from pocketclip.evaluate.tasks import Task
from pocketclip.teachers.teacher import Precision


@dataclass(frozen=True, kw_only=True)
class SuiteConfig:
    """How models are measured on tasks.

    Attributes:
        batch_size: pictures, and texts, a run of a network.
        device: where torch runs models: "cpu", "cuda", "mps".
        precision: what torch computes in.
        num_processes: that embed, each with the models of its own.
        threads: of each process, that read and decode; None for one a processor, at most 16.
        resamples: of the bootstrap, at least 1.
        level: share of them inside an interval, in (0, 1).
        seed: of the draws.
    """

    batch_size: int = 64
    device: str = "cpu"
    precision: Precision = "fp32"
    num_processes: int = 1
    threads: int | None = None
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_processes", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {self.level}")


@dataclass(frozen=True, kw_only=True)
class SuiteReport:
    """What was measured, and what could not be.

    Attributes:
        rows: model -> its results, in the order asked.
        missing: sets that are not there, or cannot be used, with what to do.
        kept: keys of results that were there already.
    """

    rows: Mapping[str, tuple[Row, ...]]
    missing: tuple[Missing, ...]
    kept: tuple[str, ...] = ()


def evaluate_tasks(
    models: Mapping[str, Evaluable],
    wanted: Sequence[Wanted],
    *,
    out: Mapping[str, Path] | None = None,
    config: SuiteConfig | None = None,
) -> SuiteReport:
    """Measures models on tasks; pictures are read and decoded once for all models.

    Args:
        models: name -> model; given by path or name where there are several processes, each of which builds its own.
        wanted: what `locate` found.
        out: name -> result file. Rows that are there from the same model and set are kept, and each new row is
            published before the next set begins. None keeps nothing.
        config: how; None for the defaults.

    Returns:
        Metrics in 0..1. A set that turns out to be damaged is among the missing.

    Raises:
        ValueError: no model, a model that cannot be used, or a result file of another model.
        OSError: a model cannot be read, or results cannot be written.
    """
    config = config or SuiteConfig()
    if not models:
        raise ValueError("there is no model to evaluate: name at least one")
    if config.num_processes > 1 and not all(isinstance(model, str | Path) for model in models.values()):
        raise ValueError("several processes need models by path or name, from which each builds its own")
    embedders = {
        name: as_embedder(model, name=name, device=config.device, precision=config.precision)
        for name, model in models.items()
    }
    books = {
        name: Book(
            name,
            embedder,
            path=(out or {}).get(name),
            precision=config.precision,
            batch_size=config.batch_size,
            resamples=config.resamples,
            level=config.level,
            seed=config.seed,
        )
        for name, embedder in embedders.items()
    }
    crew = Crew(
        models=models,
        device=config.device,
        precision=config.precision,
        batch_size=config.batch_size,
        threads=config.threads or default_threads(),
        num_processes=config.num_processes,
    )
    with Embedding(crew, embedders) as embedding:
        missing, kept = _measure(wanted, books, embedding)
    rows = {name: book.of([one.task for one in wanted]) for name, book in books.items()}
    return SuiteReport(rows=rows, missing=missing, kept=kept)


def _measure(
    wanted: Sequence[Wanted], books: Mapping[str, Book], embedding: Embedding
) -> tuple[tuple[Missing, ...], tuple[str, ...]]:
    """Set by set into the books; returns what could not be used, and the keys of what was there already."""
    missing: list[Missing] = []
    kept: list[str] = []
    for one in wanted:
        try:
            pictures = open_set(one)
        except (ValueError, OSError) as error:
            missing.append(_unusable(one.task, error))
            continue
        todo = [name for name, book in books.items() if not book.has(one.task, pictures)]
        if not todo:
            kept.append(one.task.key)
            continue
        found = embedding.embed(one, pictures, names=todo)
        try:
            for name in todo:
                books[name].add(one.task, pictures, found)
        except SetError as error:
            missing.append(_unusable(one.task, error))
    return tuple(missing), tuple(kept)


def _unusable(task: Task, error: ValueError | OSError) -> Missing:
    reason = " ".join(str(error).split())
    return Missing(key=task.key, name=task.name, reason=f"it cannot be used: {reason}")
