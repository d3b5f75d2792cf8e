"""What a report page shows, and the sentences that may be said about it: worded by the numbers, never beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pocketclip.data.index import ShardIndex
from pocketclip.evaluate.bootstrap import Interval
from pocketclip.evaluate.results import Report, SplitFacts
from pocketclip.recipes.svg import signed

METRIC = "mean_recall@1"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A contact sheet.

    Attributes:
        title: of the figure.
        path: PNG file, put into the page.
        caption: what the pictures are.
        alt: for a reader who does not see them; the captions of the pictures, say.
    """

    title: str
    path: Path
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something to type.

    Attributes:
        purpose: what it does, one sentence.
        text: the command line or lines.
    """

    purpose: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything the page shows.

    Attributes:
        title: of the page.
        summary: what was done, one paragraph.
        report: scores of all models on the test sets; the page's headline is about its first split.
        plain: name in the report of the student trained without reinforcement.
        reinforced: name of the student trained with it.
        teachers: names of the teachers.
        index: of the packed folder: counts, what was dropped, licences, attribution.
        curves: run name (best a model's) -> records of its metrics.jsonl: `step`, `loss`, sometimes
            `validation/mean_recall@1` (0..1).
        timings: (step of the road, seconds) in order.
        sheets: contact sheets of good and bad retrievals.
        facts: anything else worth a line ("Machine": "2 CPU cores").
        commands: what a reader may type next, the search first.
    """

    title: str
    summary: str
    report: Report
    plain: str
    reinforced: str
    teachers: tuple[str, ...]
    index: ShardIndex
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    timings: Sequence[tuple[str, float]] = ()
    sheets: Sequence[Sheet] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[Command] = ()


def headline(report: Report, *, plain: str, reinforced: str, split: str | None = None) -> str:
    """One sentence on what reinforcement did, worded by the sign and the interval of the paired difference.

    Args:
        report: holds both students.
        plain: name of the one trained without reinforcement.
        reinforced: name of the one trained with it.
        split: None for the report's first.

    Raises:
        ValueError: the report does not hold these.
    """
    split = split or next(iter(report.splits))
    gain = report.compare(reinforced, plain, split=split, metric=METRIC)
    before, after = (report.result(name, split).scores[METRIC].value for name in (plain, reinforced))
    interval = f"{report.config.level:.0%} interval {points(gain.low)} to {points(gain.high)}"
    where = f"on the {short_name(split)} test set"
    match sign(gain):
        case "gain":
            moved = f"raised mean recall@1 {where} from {before:.1%} to {after:.1%}"
            return f"Reinforced training {moved}: {points(gain.value)} points ({interval})."
        case "loss":
            moved = f"lowered mean recall@1 {where} from {before:.1%} to {after:.1%}"
            return f"Reinforced training {moved}: {points(gain.value)} points ({interval})."
        case "unclear":
            return (
                f"Reinforced training made no clear difference to mean recall@1 {where}: {before:.1%} without it, "
                f"{after:.1%} with it, {points(gain.value)} points; the {interval} includes zero."
            )


def sign(gain: Interval) -> Literal["gain", "loss", "unclear"]:
    """Which way a paired difference goes; unclear where its interval holds zero."""
    if gain.low > 0:
        return "gain"
    return "loss" if gain.high < 0 else "unclear"


def equal_steps(content: ReportContent) -> str:
    """A sentence on whether both students took as many steps, by their last records; empty if not recorded."""
    steps = [
        max((int(record["step"]) for record in content.curves.get(name, ()) if "step" in record), default=0)
        for name in (content.plain, content.reinforced)
    ]
    if not all(steps):
        return ""
    if steps[0] == steps[1]:
        return f"Both students took {steps[0]:,} steps."
    return (
        f"The students did not take equally many steps ({steps[0]:,} without reinforcement, {steps[1]:,} with it), "
        "so this does not compare the two ways of training."
    )


def chance(facts: SplitFacts) -> float:
    """Mean recall@1 (0..1) of a model that guesses."""
    pairs = sum(len(set(rows)) for rows in facts.relevant)
    return pairs / (len(facts.image_keys) * len(facts.texts))


def points(share: float) -> str:
    """A difference of shares (-1..1) as signed percentage points."""
    return signed(100 * share)


def short_name(split: str) -> str:
    """A test split without its prefix."""
    return split.removeprefix("test-")
