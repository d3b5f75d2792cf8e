"""What fine-tuning found, in words that its numbers bear: what was gained, and what was forgotten elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pocketclip.data.index import ShardIndex
from pocketclip.data.publish import publish_file
from pocketclip.evaluate import Report
from pocketclip.recipes.plot import plot
from pocketclip.recipes.report_content import METRIC, points, sign

BEFORE, TUNED, AFTER = "before", "end of training", "after"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What fine-tuning found.

    Attributes:
        start: the checkpoint it began with, as it was named.
        index: of the packed pictures.
        scores: share of the fine-tuned weights -> mean recall@1 (0..1) on the validation split.
        share: that was kept.
        own: before, end of training and after, on the own pictures.
        general: the same on pictures that were not trained on; None where none were given.
    """

    start: str
    index: ShardIndex
    scores: dict[float, float]
    share: float
    own: Report
    general: Report | None

    def sentences(self) -> list[str]:
        """One sentence for each measured split, worded by sign and interval of the paired difference."""
        told = [_sentence(self.own, split, where="your pictures", loss="lost") for split in self.own.splits]
        if self.general:
            general = self.general
            told += [
                _sentence(general, split, where="the general set", loss="forgotten")
                for split in general.splits
            ]
        return told

    def values(self) -> dict[str, object]:
        """Mean recall@1 (0..1) of every model on every split, and the share, as JSON."""
        return {
            "share": self.share,
            "shares": {f"{share:g}": score for share, score in self.scores.items()},
            "own": _scores(self.own),
            "general": _scores(self.general) if self.general else None,
        }

    def text(self) -> str:
        """Tables and sentences, for a terminal."""
        lines = ["your pictures", "", self.own.table()]
        if self.general:
            lines += ["", "the general set, not trained on", "", self.general.table()]
        return "\n".join([*lines, "", *self.sentences(), *self.notes()])

    def notes(self) -> Iterator[str]:
        """What was kept, and what to make of the numbers."""
        if self.share == 0.0:
            yield "No point on the way was better than the start on the validation pictures: the start was kept."
        elif self.share == 1.0:
            yield "Kept: the fine-tuned weights; no point on the way to them did as well on the validation pictures."
        else:
            yield f"Kept: {1 - self.share:.0%} of the start's weights and {self.share:.0%} of the fine-tuned ones."
        if tuple(self.own.splits) == ("validation",):
            yield (
                "The validation pictures also chose when to stop and what to keep, so the gain on them is a little "
                "flattered; pictures in a split whose name begins with test would not be."
            )


def write_report(path: Path, tuned: Tuned, *, metrics: Path) -> None:
    """Publishes the page, Markdown, and the run's curves beside it.

    Args:
        path: of the page.
        tuned: what it says.
        metrics: the run's metrics.jsonl.
    """
    curves = path.with_name("curves.svg")
    plot({"fine-tuning": metrics}, curves)
    counts = ", ".join(f"{tuned.index.num_samples(split):,} {split}" for split in tuned.index.splits)
    sentences = "\n".join(f"- {sentence}" for sentence in [*tuned.sentences(), *tuned.notes()])
    shares = "\n".join(f"| {share:g} | {score:.1%} |" for share, score in tuned.scores.items())
    sections = [
        f"# Fine-tuned from {tuned.start}",
        f"Pictures: {counts}; {len(tuned.index.dropped)} dropped.",
        sentences,
        f"## Your pictures\n\n```\n{tuned.own.table()}\n```",
    ]
    if tuned.general:
        sections.append(f"## The general set\n\n```\n{tuned.general.table()}\n```")
    head = "| share of the fine-tuned weights | validation, mean recall@1 |\n|---|---|"
    sections += [f"## Between start and end\n\n{head}\n{shares}", f"## Training\n\n![curves]({curves.name})"]
    with publish_file(path) as file:
        file.write(("\n\n".join(sections) + "\n").encode())


def _sentence(report: Report, split: str, *, where: str, loss: str) -> str:
    difference = report.compare(AFTER, BEFORE, split=split, metric=METRIC)
    before, after = (report.result(name, split).scores[METRIC].value for name in (BEFORE, AFTER))
    level = f"{report.config.level:.0%} interval {points(difference.low)} to {points(difference.high)}"
    moved = (
        f"mean recall@1 {before:.1%} before, {after:.1%} after, {points(difference.value)} points ({level})"
    )
    match sign(difference):
        case "gain":
            verdict = "gained"
        case "loss":
            verdict = loss
        case "unclear":
            verdict = "no clear change"
    return f"On {where} ({split}): {moved}: {verdict}."


def _scores(report: Report) -> dict[str, dict[str, float]]:
    return {
        split: {model: report.result(model, split).scores[METRIC].value for model in report.models}
        for split in report.splits
    }
