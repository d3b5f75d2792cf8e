"""Reinforces a data set, each shard once, going on where an earlier run stopped."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import FrameType

import torch

from pocketclip.data.index import ShardIndex
from pocketclip.data.objects import Place, open_store
from pocketclip.data.reinforcement import VERSION
from pocketclip.data.sample import JsonValue
from pocketclip.reinforce.config import EngineConfig, ReinforceConfig
from pocketclip.reinforce.driver import Crew, Driver, FailedShardsError, Progress
from pocketclip.reinforce.ledger import FAILURES_FILE, Ledger, Run
from pocketclip.reinforce.local import LocalCrew
from pocketclip.reinforce.units import Plan, Unit, plan_units
from pocketclip.reinforce.worker import Ensemble, Task

_NAMED = 3  # failed shards that an error names


def reinforce(
    data: Path | str,
    out: Path | str,
    *,
    config: ReinforceConfig,
    engine: EngineConfig = EngineConfig(),  # noqa: B008 - frozen
) -> ShardIndex:
    """Writes `out`: for every shard of the input one of the same name with its reinforcement, then manifest and index.

    Killed anywhere and run again it goes on, and ends in the same bytes; finished, it is left alone.

    Args:
        data: a packed folder; tars, parquet or JSON lines as a folder, a pattern or an `info.json`; a folder of
            captioned pictures. Folders or addresses (s3://, gs://, az://).
        out: the reinforced folder, or address.
        config: the reinforcement.
        engine: where it runs.

    Returns:
        The index of `out`.

    Raises:
        ValueError: `out` holds something else; a teacher or the input is unusable; not one sample of a split can be
            used.
        FailedShardsError: some shards failed; all others are done, and the same call tries the failed ones again.
        FileNotFoundError: there is no such input or teacher.
        ImportError: an extra that this needs is not installed.
        PublishError: `out` cannot be written.
    """
    options = dict(engine.store_options)
    source, target = Place(url=str(data), options=options), Place(url=str(out), options=options)
    plan = plan_units(source, splits=config.splits, shard_samples=config.shard_samples)
    ledger = Ledger(open_store(target))
    begun_with = ledger.num_threads()
    config = replace(config, num_threads=config.num_threads or begun_with or _threads(engine))
    task = Task(
        config=config, source=plan.place, out=target, engine=engine.kind, num_loaders=engine.num_loaders
    )
    is_ours = False
    try:
        with _interrupted_by_termination(), closing(_crew(task, engine)) as crew:
            ensemble = crew.open()
            digest = _digest(config, ensemble)
            run = Run(config_digest=digest, data_digest=plan.digest, num_threads=task.num_threads)
            index = ledger.claim(run)
            if index is not None:
                return index
            is_ours = True
            _work(plan, crew, ledger=ledger, digest=digest, engine=engine)
    finally:
        if is_ours:
            ledger.sweep()
    return ledger.finish(plan, config=_facts(config, ensemble, run=run), num_views=config.num_views)


def _work(plan: Plan, crew: Crew, *, ledger: Ledger, digest: str, engine: EngineConfig) -> None:
    """Makes what is not there. FailedShardsError names what could not be made."""
    with Progress(
        num_units=len(plan.units), num_samples=plan.num_samples, describe=crew.describe
    ) as progress:
        if isinstance(crew, LocalCrew):
            crew.progress = progress.items
        driver = Driver(
            crew=crew,
            config_digest=digest,
            attempts=engine.attempts,
            straggler=engine.straggler,
            report=progress.outcome,
        )

        def missing() -> Generator[Unit]:
            for unit, marker in ledger.done(plan.units):
                if marker is None:
                    yield unit
                else:
                    progress.found(marker.facts.num_samples, len(marker.facts.dropped))

        try:
            driver.run(missing())
        finally:
            if driver.failures:
                ledger.fail(failure.to_json() for failure in driver.failures)
    if driver.failures:
        named = [f"{failure.unit.name} ({failure.reasons[-1]})" for failure in driver.failures[:_NAMED]]
        more = f" and {len(driver.failures) - _NAMED} more" if len(driver.failures) > _NAMED else ""
        raise FailedShardsError(
            f"{len(driver.failures)} of {len(plan.units)} shards failed: {', '.join(named)}{more}; all others are "
            f"done, {FAILURES_FILE} lists the failed ones, and the same command tries them again"
        )


def _crew(task: Task, engine: EngineConfig) -> Crew:
    if engine.kind == "in-process":
        return LocalCrew(task)
    from pocketclip.reinforce.cluster import RayCrew

    return RayCrew(task, engine=engine)


def _threads(engine: EngineConfig) -> int:
    """Of torch in each worker, where nobody says: its own number, or a fair share of it."""
    num_workers = 1 if engine.kind == "in-process" else engine.max_workers or engine.min_workers
    return max(1, torch.get_num_threads() // num_workers)


def _digest(config: ReinforceConfig, ensemble: Ensemble) -> str:
    """Of everything that the output's bytes depend on, apart from the input."""
    described = {field.name: getattr(config, field.name) for field in fields(config)}
    described |= {
        "version": VERSION,
        "augment": asdict(config.augment),
        "teachers": [asdict(record) for record in ensemble.teachers],
        "captioners": [
            {**asdict(spec), "source": ensemble.captioners[spec.name]} for spec in config.captioners
        ],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _facts(config: ReinforceConfig, ensemble: Ensemble, *, run: Run) -> dict[str, JsonValue]:
    """What the index says of the configuration."""
    captioners: list[JsonValue] = [dict(one) for one in ensemble.described[len(ensemble.teachers) :]]
    records: list[JsonValue] = [
        {**one, **asdict(record)} for record, one in zip(ensemble.teachers, ensemble.described, strict=False)
    ]
    return {
        "digest": run.config_digest,
        "data_digest": run.data_digest,
        "num_threads": run.num_threads,
        "num_views": config.num_views,
        "codec": config.codec,
        "teachers": records,
        "captioners": captioners,
    }


@contextmanager
def _interrupted_by_termination() -> Generator[None, None, None]:
    """Lets SIGTERM end the run as an interruption from the keyboard does, with nothing half-made left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
