"""The downloads of one shard: many at a time, each tried again while that may help, every outcome in the ledger."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pocketclip.data.publish import cannot_write
from pocketclip.join.config import DownloadConfig
from pocketclip.join.download import DownloadError, download
from pocketclip.join.ledger import Download, Ledger

_NOTED = 100  # outcomes in one transaction of the ledger


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A picture to download.

    Attributes:
        uid: its uid.
        file: where it goes.
        url: where it comes from.
        sha256: what it should be; None takes whatever comes.
        earlier: attempts of earlier runs.
    """

    uid: str
    file: Path
    url: str
    sha256: str | None
    earlier: int = 0


def fetch(
    wanted: Iterable[Wanted],
    *,
    ledger: Ledger,
    config: DownloadConfig,
    report: Callable[[Download], object] = lambda _: None,
) -> int:
    """Downloads pictures.

    Args:
        wanted: the pictures.
        ledger: notes every outcome, once its file is written.
        config: limits.
        report: called with every outcome.

    Returns:
        How many were got.

    Raises:
        PublishError: a file cannot be written.
    """
    stopped = threading.Event()
    waiting = iter(wanted)
    running: set[Future[Download]] = set()
    outcomes: list[Download] = []
    num_got = 0
    with ThreadPoolExecutor(config.connections, thread_name_prefix="downloads") as pool:

        def start(one: Wanted) -> Future[Download]:
            return pool.submit(_fetch, one, config=config, stopped=stopped)

        try:
            running = {start(one) for one in islice(waiting, 2 * config.connections)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {start(one) for one in islice(waiting, len(done))}
                for future in done:
                    outcome = future.result()
                    outcomes.append(outcome)
                    num_got += not outcome.reason
                    report(outcome)
                if len(outcomes) >= _NOTED:
                    ledger.put(outcomes)
                    outcomes.clear()
        finally:
            stopped.set()
            for future in running:
                future.cancel()
            ledger.put(outcomes)
    return num_got


def _fetch(wanted: Wanted, *, config: DownloadConfig, stopped: threading.Event) -> Download:
    """Tries until it has the picture, or knows better, or has tried often enough."""
    attempt = 1
    while True:
        try:
            data = download(wanted.url, config=config)
            sha256 = _checked(data, wanted)
            break
        except DownloadError as error:
            wait_s = max(error.wait_s or 0.0, config.backoff_s * 2 ** (attempt - 1))
            if not error.may_pass or attempt == config.attempts or stopped.wait(wait_s):
                return Download(
                    uid=wanted.uid,
                    url=wanted.url,
                    reason=error.reason,
                    may_pass=error.may_pass,
                    attempts=wanted.earlier + attempt,
                )
            attempt += 1
    with cannot_write(wanted.file):
        wanted.file.parent.mkdir(parents=True, exist_ok=True)
        partial = wanted.file.with_name(f".{wanted.file.name}.partial")
        partial.write_bytes(data)
        partial.replace(wanted.file)
    return Download(
        uid=wanted.uid,
        url=wanted.url,
        attempts=wanted.earlier + attempt,
        num_bytes=len(data),
        sha256=sha256,
    )


def _checked(data: bytes, wanted: Wanted) -> str:
    if not data:
        raise DownloadError("no bytes", may_pass=True)
    sha256 = hashlib.sha256(data).hexdigest()
    if wanted.sha256 is not None and sha256 != wanted.sha256:
        raise DownloadError("another picture is there now (its sha256 differs)", may_pass=False)
    return sha256
