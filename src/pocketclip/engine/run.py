"""Works through a plan, each unit once, going on where an earlier run stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from types import FrameType

import torch

from pocketclip.data.index import ShardIndex
from pocketclip.data.objects import Place, open_store
from pocketclip.data.sample import JsonValue
from pocketclip.engine.config import EngineConfig
from pocketclip.engine.driver import Crew, Driver, FailedShardsError, Progress
from pocketclip.engine.ledger import FAILURES_FILE, Ledger, Run
from pocketclip.engine.local import LocalCrew
from pocketclip.engine.task import Tally, Task, Verb
from pocketclip.engine.units import Plan, Unit
from pocketclip.engine.worker import Order

_NAMED = 3  # failed shards that an error names


def settled_threads(out: Place, *, verb: Verb, engine: EngineConfig, asked: int | None) -> int:
    """Threads of torch in each worker: what was asked for, else what the folder was begun with, else a fair share.

    Args:
        out: the folder of outputs.
        verb: whose it is.
        engine: the workers.
        asked: of the configuration; None: nobody says.

    Raises:
        ValueError: `out` holds something else.
    """
    begun_with = Ledger(open_store(out), verb=verb).num_threads()
    return asked or begun_with or max(1, torch.get_num_threads() // engine.num_workers)


def run_task(
    task: Task,
    *,
    plan: Plan,
    out: Place,
    verb: Verb,
    engine: EngineConfig,
    digest: Callable[[Mapping[str, JsonValue]], str],
    config: Callable[[Mapping[str, JsonValue]], Mapping[str, JsonValue]],
    tally: Tally,
) -> ShardIndex:
    """Makes the output of every unit, then manifest and index.

    Killed anywhere and run again it goes on, and ends in the same bytes; finished, it is left alone.

    Args:
        task: what every worker does.
        plan: the units.
        out: the folder of outputs.
        verb: how it is spoken of.
        engine: where it runs.
        digest: of everything that the outputs' bytes depend on, apart from the input, given who is at work
            (`Maker.described`).
        config: what the index says of the configuration, given who is at work.
        tally: gathers what else the index says; empty.

    Returns:
        The index of `out`.

    Raises:
        ValueError: `out` holds something else; not one sample of a split can be used.
        FailedShardsError: some units failed; all others are done, and the same call tries the failed ones again.
        ImportError: an extra that this needs is not installed.
        PublishError: `out` cannot be written.
        OSError: and whatever else `Task.build` raises.
    """
    ledger = Ledger(open_store(out), verb=verb)
    is_ours = False
    try:
        order = Order(task=task, source=plan.place, out=out, engine=engine.kind)
        with _interrupted_by_termination(), closing(_crew(order, engine)) as crew:
            described = crew.open()
            settings, threads = digest(described), task.num_threads
            run = Run(verb=verb.name, config_digest=settings, data_digest=plan.digest, num_threads=threads)
            index = ledger.claim(run)
            if index is not None:
                return index
            is_ours = True
            _work(plan, crew, ledger=ledger, run=run, engine=engine)
    finally:
        if is_ours:
            ledger.sweep()
    facts = {
        "digest": run.config_digest,
        "data_digest": run.data_digest,
        "num_threads": run.num_threads,
        **config(described),
    }
    return ledger.finish(plan, config=facts, tally=tally)


def _work(plan: Plan, crew: Crew, *, ledger: Ledger, run: Run, engine: EngineConfig) -> None:
    """Makes what is not there. FailedShardsError names what could not be made."""
    with Progress(
        name=run.verb, num_units=len(plan.units), num_samples=plan.num_samples, describe=crew.describe
    ) as progress:
        if isinstance(crew, LocalCrew):
            crew.progress = progress.items
        driver = Driver(
            crew=crew,
            config_digest=run.config_digest,
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


def _crew(order: Order, engine: EngineConfig) -> Crew:
    if engine.kind == "in-process":
        return LocalCrew(order)
    from pocketclip.engine.cluster import RayCrew

    return RayCrew(order, engine=engine)


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
