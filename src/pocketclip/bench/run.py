"""Models in, races run, a report out."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from pocketclip.bench.backends import BenchBackend, Call, bench_backends
from pocketclip.bench.config import BenchConfig
from pocketclip.bench.machine import PEAK_FLOPS, describe_machine, peak_call
from pocketclip.bench.memory import peak_memory_mb
from pocketclip.bench.race import Timing, quartiles, race
from pocketclip.bench.report import BenchReport, Contestant, Peak, Row
from pocketclip.bench.subject import DTYPES, Setting, Subject
from pocketclip.runtime.tower import TowerError

_PEAK_NAME = "matrix product in {}"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model, run somehow.

    Attributes:
        subject: the model.
        setting: how.
        backend: what runs it.
        precision: what it is called by.
    """

    subject: Subject
    setting: Setting
    backend: BenchBackend
    precision: str

    @property
    def name(self) -> str:
        """Unique in its race."""
        return f"{self.subject.name} by {self.setting.backend} in {self.precision}"

    @property
    def peak_precision(self) -> str:
        """Whose matrix product it is measured against."""
        return self.precision if self.precision in DTYPES else "fp32"


def bench(
    models: Mapping[str, Path | str],
    *,
    config: BenchConfig | None = None,
    exported: Mapping[str, Path] | None = None,
) -> BenchReport:
    """Measure the towers of models, all in turns.

    Args:
        models: name -> variant's name (random weights), checkpoint, or exported folder.
        config: what and how; None for the defaults.
        exported: name -> exported folder of the same checkpoint, so that the runtime's backends can run it too.

    Returns:
        A row for each model, tower, backend, precision, number of threads and batch size that can be run.

    Raises:
        ValueError: no model, an unknown backend, nothing that can be run, a model that cannot be used.
        OSError: a file that cannot be read.
    """
    config = config or BenchConfig()
    known = bench_backends()
    unknown = [name for name in config.backends if name not in known]
    if unknown:
        raise ValueError(f"there is no backend {', '.join(unknown)}; there are {', '.join(known)}")
    if not models:
        raise ValueError("there is no model to measure: name at least one")
    exported = exported or {}
    subjects = [Subject(name, source, exported=exported.get(name)) for name, source in models.items()]
    races = [found for frame in _frames(config) if (found := _contenders(subjects, frame, config, known))]
    if not races:
        raise ValueError(
            f"none of {', '.join(config.backends)} runs these models here: checkpoints are run by eager, folded and "
            "compiled, exported folders by the runtime's backends"
        )
    rows: list[Row] = []
    peaks: dict[tuple[str, int], list[float]] = {}
    turns = config.rounds * sum(len(contenders) + len(_peak_precisions(contenders)) for contenders in races)
    threads_before = torch.get_num_threads()
    with tqdm(total=turns, desc="bench", unit="turn", mininterval=0.1 if sys.stderr.isatty() else 10) as bar:
        for contenders in races:
            rows += _run(contenders, config, bar=bar, peaks=peaks)
            for subject in subjects:
                subject.forget()
    torch.set_num_threads(threads_before)
    return BenchReport(
        machine=describe_machine(config.device),
        config=config,
        models={
            subject.name: Contestant(
                source=subject.source, variant=subject.variant, image_px=subject.image_px
            )
            for subject in subjects
        },
        peaks=tuple(
            Peak(precision=precision, threads=threads, gflops=quartiles(rates)[1])
            for (precision, threads), rates in peaks.items()
        ),
        rows=tuple(rows),
        left_out=_left_out(subjects, config, rows),
    )


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What all contenders of a race have in common; `image_px` None: each model's own."""

    tower: str
    threads: int
    batch_size: int
    image_px: int | None


def _frames(config: BenchConfig) -> Iterator[Frame]:
    for tower, threads, batch_size in itertools.product(config.towers, config.threads, config.batch_sizes):
        sizes = (config.sizes or (None,)) if tower == "image" else (None,)
        for image_px in sizes:
            yield Frame(tower=tower, threads=threads, batch_size=batch_size, image_px=image_px)


def _contenders(
    subjects: Sequence[Subject], frame: Frame, config: BenchConfig, known: Mapping[str, BenchBackend]
) -> list[Contender]:
    """Who can take part, each once: an export has one precision whatever torch's."""
    found: dict[str, Contender] = {}
    for subject, name, precision in itertools.product(subjects, config.backends, config.precisions):
        setting = Setting(
            tower=frame.tower,
            backend=name,
            precision=precision,
            threads=frame.threads,
            batch_size=frame.batch_size,
            image_px=(frame.image_px or subject.image_px) if frame.tower == "image" else None,
            device=config.device,
        )
        backend = known[name]
        if backend.can(subject, setting):
            contender = Contender(
                subject=subject,
                setting=setting,
                backend=backend,
                precision=backend.precision(subject, setting),
            )
            found.setdefault(contender.name, contender)
    return list(found.values())


def _peak_precisions(contenders: Sequence[Contender]) -> list[str]:
    return list(dict.fromkeys(contender.peak_precision for contender in contenders))


def _run(
    contenders: Sequence[Contender],
    config: BenchConfig,
    *,
    bar: tqdm,
    peaks: dict[tuple[str, int], list[float]],
) -> list[Row]:
    """One race: the contenders and the matrix products they are measured against, in turns."""
    threads = contenders[0].setting.threads
    torch.set_num_threads(threads)
    torch.compiler.reset()  # what was compiled for another number of threads
    products = {_PEAK_NAME.format(name): name for name in _peak_precisions(contenders)}
    calls = {contender.name: _open(contender) for contender in contenders}
    calls |= {name: peak_call(precision, config.device) for name, precision in products.items()}
    timings = race(
        calls,
        rounds=config.rounds,
        turn_seconds=config.turn_seconds,
        warmup=config.warmup,
        on_turn=bar.update,
    )
    del calls
    for name, precision in products.items():
        rates = [PEAK_FLOPS / seconds / 1e9 for seconds in timings[name].medians]
        peaks.setdefault((precision, threads), []).extend(rates)
    first = timings[contenders[0].name]
    return [
        _row(
            contender,
            timings[contender.name],
            first=first,
            product=timings[_PEAK_NAME.format(contender.peak_precision)],
            memory=config.memory,
        )
        for contender in contenders
    ]


def _open(contender: Contender) -> Call:
    try:
        return contender.backend.open(contender.subject, contender.setting)
    except TowerError as error:
        raise ValueError(f"{contender.name} cannot be run ({error}): export the checkpoint again") from error


def _row(contender: Contender, timing: Timing, *, first: Timing, product: Timing, memory: bool) -> Row:
    setting, subject = contender.setting, contender.subject
    macs = subject.macs(setting.tower, is_folded=contender.backend.is_folded, image_px=setting.image_px)
    q1, median, q3 = quartiles(timing.calls)
    ratio_q1, ratio, ratio_q3 = quartiles(timing.ratios(first))
    share = None
    if macs is not None:
        work = 2 * macs * setting.batch_size / PEAK_FLOPS
        share = work * quartiles(product.ratios(timing))[1]
    return Row(
        model=subject.name,
        tower=setting.tower,
        backend=setting.backend,
        precision=contender.precision,
        threads=setting.threads,
        batch_size=setting.batch_size,
        image_px=setting.image_px,
        latency_ms=1000 * median,
        q1_ms=1000 * q1,
        q3_ms=1000 * q3,
        num_calls=len(timing.calls),
        macs=macs,
        peak_share=share,
        ratio=ratio,
        ratio_q1=ratio_q1,
        ratio_q3=ratio_q3,
        memory_mb=peak_memory_mb(subject, setting) if memory else None,
    )


def _left_out(subjects: Sequence[Subject], config: BenchConfig, rows: Sequence[Row]) -> tuple[str, ...]:
    """What was asked for and has no row, a sentence each."""
    there = {(row.model, row.backend, row.tower) for row in rows}
    return tuple(
        f"{subject.name}: its {tower} tower is not run by {backend} here"
        for subject, backend, tower in itertools.product(subjects, config.backends, config.towers)
        if (subject.name, backend, tower) not in there
    )
