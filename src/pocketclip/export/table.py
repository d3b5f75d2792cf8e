"""Many exports of one checkpoint, side by side: targets by precisions, with size, parity and latency."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pocketclip.checkpoint import Loaded
from pocketclip.data.publish import publish_file
from pocketclip.data.sample import JsonValue
from pocketclip.export.config import PRECISIONS, ExportConfig, Precision, Target
from pocketclip.export.judge import Judge, sit
from pocketclip.export.page_parity import NOT_RUN
from pocketclip.export.report import ParityError, ParityReport
from pocketclip.export.run import Material, export_before, open_towers
from pocketclip.export.towers import CannotRunError
from pocketclip.export.visit import visit
from pocketclip.runtime import ExportedModel
from pocketclip.runtime.choice import feed
from pocketclip.runtime.manifest import read_manifest
from pocketclip.runtime.probes import read_probes

TABLE_FILE = "exports.json"
_RUNS = 20
_MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class ExportRow:
    """What became of one export.

    Attributes:
        target: format.
        precision: of weights and arithmetic.
        verdict: "passed", "failed" (published by force), "not run" (nothing here runs it) or "refused".
        reason: why it was refused, or why its page was not run in a browser; empty otherwise.
        num_megabytes: of all its files; None where nothing was published.
        latency_ms: tower -> median milliseconds of batch 1 in this process; empty where nothing runs it here.
        report: what the gate measured; None where it could not.
    """

    target: Target
    precision: Precision
    verdict: str
    reason: str = ""
    num_megabytes: float | None = None
    latency_ms: dict[str, float]
    report: ParityReport | None

    def to_json(self) -> dict[str, JsonValue]:
        """Plain JSON values."""
        return {**asdict(self), "report": None if self.report is None else self.report.to_json()}


def export_all(
    checkpoint: Loaded,
    out: Path,
    *,
    targets: Sequence[Target],
    precisions: Sequence[Precision],
    config: ExportConfig,
    material: Material,
    announce: Callable[[str], object] = lambda line: None,
) -> list[ExportRow]:
    """Exports to OUT/TARGET-PRECISION each combination that can be written, and writes OUT/exports.json.

    A combination that fails leaves the others alone.

    Args:
        checkpoint: loaded.
        out: folder of folders.
        targets: formats.
        precisions: those that a target cannot be written in are passed over.
        config: everything else.
        material: real pictures and captions.
        announce: told what is being done.

    Raises:
        ValueError: no target can be written in any of the precisions.
    """
    wanted = [(target, one) for target in targets for one in precisions if one in PRECISIONS[target]]
    if not wanted:
        raise ValueError(f"none of {', '.join(targets)} can be written in {', '.join(precisions)}")
    rows = []
    pairs = material.judged_by
    with sit(checkpoint, pairs=pairs, num_pictures=config.num_pictures, seed=config.seed) as judge:
        for target, precision in wanted:
            announce(f"{target} {precision}")
            one = replace(config, target=target, precision=precision)
            rows.append(
                _export_one(judge, Path(out) / f"{target}-{precision}", config=one, material=material)
            )
            with publish_file(Path(out) / TABLE_FILE) as file:
                file.write(json.dumps([row.to_json() for row in rows], indent=1).encode() + b"\n")
    return rows


def _export_one(judge: Judge, folder: Path, *, config: ExportConfig, material: Material) -> ExportRow:
    try:
        report = export_before(judge, folder, config=config, material=material)
    except (ParityError, ImportError, ValueError) as error:
        return ExportRow(
            target=config.target,
            precision=config.precision,
            verdict="refused",
            reason=str(error),
            latency_ms={},
            report=error.report if isinstance(error, ParityError) else None,
        )
    return ExportRow(
        target=config.target,
        precision=config.precision,
        reason=_not_visited(folder),
        verdict="passed" if report.passed else "failed" if report.was_run else "not run",
        num_megabytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MEGABYTE,
        latency_ms=_latency_ms(folder, config=config) if report.was_run else {},
        report=report,
    )


def _not_visited(folder: Path) -> str:
    """Why no browser opened a page; empty where one did, and where there is none."""
    browser = read_manifest(folder).settings.get("browser")
    return browser if isinstance(browser, str) and browser.startswith(NOT_RUN) else ""


def _latency_ms(folder: Path, *, config: ExportConfig) -> dict[str, float]:
    """Median time of one input, for a page in the browser; `pocketclip bench` measures with more care."""
    manifest = ExportedModel(folder, verify=False).manifest
    if config.target == "web":
        try:
            with visit(folder) as visitor:
                return visitor.latency_ms()
        except CannotRunError:
            return {}
    probes = read_probes(folder / manifest.files["probes"].name)
    medians = {}
    for role, tower in open_towers(folder, config=config).items():
        one = np.ascontiguousarray(probes[role].inputs[:1])
        seconds = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            feed(tower, one, preprocess=manifest.preprocess, pixels=manifest.pixels)
            seconds.append(time.perf_counter() - start)
        medians[role] = 1000 * statistics.median(seconds)
    return medians
