"""The gate, held in a browser: what a page computes by itself, from pictures and texts, against the checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pocketclip.export.config import ExportConfig
from pocketclip.export.judge import Judge
from pocketclip.export.parity import measure
from pocketclip.export.probes import Probes
from pocketclip.export.report import ParityReport
from pocketclip.export.towers import CannotRunError
from pocketclip.export.visit import visit

_REAL = 8  # pictures and captions of those given, besides all that are made up
NOT_RUN = "not run in a browser"


def measure_page(
    report: ParityReport, folder: Path, *, judge: Judge, config: ExportConfig
) -> tuple[ParityReport, str]:
    """Adds to a report what the page in a folder gives in headless Chromium, where there is one.

    Args:
        report: of the same folder's towers.
        folder: written by the target "web".
        judge: of its checkpoint.
        config: thresholds.

    Returns:
        The report with entries "browser image" and "browser text", and what ran them, for the manifest. A page that
        fails is one of the report's problems.
    """
    num = judge.probes.num_pairs
    real, rest = slice(min(num, _REAL)), slice(num, None)
    images, texts = judge.probes.images, judge.probes.texts
    probes = Probes(images=(*images[real], *images[rest]), texts=(*texts[real], *texts[rest]))
    expected = {
        role: np.concatenate([embed_ND[real], embed_ND[rest]])
        for role, embed_ND in judge.expected.items()
        if role in config.towers
    }
    one = replace(config, batch_sizes=(max(config.batch_sizes),))
    try:
        with visit(folder) as visitor:
            found = measure(visitor, reference=judge.loaded, expected=expected, probes=probes, config=one)
            asked = tuple(f"the page asked for {address}, outside of its folder" for address in visitor.asked)
    except CannotRunError as error:
        return report, f"{NOT_RUN}: {error}"
    except ValueError as error:
        return replace(report, problems=(*report.problems, f"the page: {error}")), "failed"
    entries = [replace(entry, tower=f"browser {entry.tower}") for entry in found.towers]
    problems = (*report.problems, *(f"the page: {problem}" for problem in found.problems), *asked)
    return replace(report, towers=(*report.towers, *entries), problems=problems), visitor.browser
