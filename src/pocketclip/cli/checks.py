"""The verbs that look into shards: verify and inspect."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.published import parse_teachers
from pocketclip.cli.verbs import Outcome, UsageError

_SHOWN = 20  # defects on the screen


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every sample of every shard: files, keys, pictures, captions, embeddings, and that views replay.

    DATA is a packed or reinforced folder, published shards (a folder, a pattern, a file), or one of our shards. Every
    defect is named by shard and key, with its reason; the first one stops nothing. Exit code 1 when there are defects.

    Examples:
        pocketclip verify reinforced/
        pocketclip verify DataCompDR-12M/ --sample 100 --workers 8 --list defects.jsonl
    """

    data: Positional[str]
    """What to check."""
    split: Annotated[tuple[str, ...], arg(metavar="SPLIT ...", help_behavior_hint="(default: all)")] = ()
    """Splits of a packed folder."""
    sample: Annotated[str, arg(metavar="N|all")] = "all"
    """Samples of each shard to look into, spread evenly; files and keys are checked in any case."""
    workers: Annotated[int | None, arg(help_behavior_hint="(default: one a core)")] = None
    """Processes."""
    list: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write every defect here, a line of JSON each."""
    teachers: Literal["auto", "v1", "v2"] = "auto"
    """Of published shards: whose embeddings they are."""
    teacher: Annotated[
        tuple[str, ...],
        arg(metavar="NAME=WIDTH@SCALE ...", help_behavior_hint="(default: the published ones)"),
    ] = ()
    """Of published shards: other teachers, in the order of their columns."""
    augment: Annotated[Path | None, arg(metavar="CONFIG", help_behavior_hint="(default: found out)")] = None
    """Of published shards: the set's config.json."""
    ignore_sha256: bool = False
    """Of published shards: do not compare pictures with their published hashes."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Verifies."""
        from pocketclip.verify import VerifyConfig, verify

        if self.sample != "all" and not self.sample.isdigit():
            raise UsageError(f"--sample is a number or all, got {self.sample!r}")
        config = VerifyConfig(
            splits=self.split,
            sample=None if self.sample == "all" else int(self.sample),
            workers=self.workers if self.workers is not None else os.cpu_count() or 1,
            list_in=self.list,
            generation=self.teachers,
            teachers=parse_teachers(self.teacher),
            augment=self.augment,
            check_sha256=not self.ignore_sha256,
        )
        report = verify(self.data, config=config)
        lines = [
            f"{report.layout}: {report.num_shards} shards, {report.num_samples} samples",
            f"{report.num_checked:8} samples looked into",
            f"{report.num_texts:8} captions",
            f"{report.num_views:8} views replayed",
        ]
        for defect in report.defects[:_SHOWN]:
            place = f"{defect.shard}: {defect.key}" if defect.key else defect.shard
            lines.append(f"{'':9}{place}: {defect.reason}")
        if report.num_defects > _SHOWN:
            listed = f"{self.list} lists them all" if self.list else "--list FILE lists them all"
            lines.append(f"{'':9}... and {report.num_defects - _SHOWN} more, {listed}")
        lines += [f"{num:8} {kind}" for kind, num in report.kinds.items()]
        lines.append(f"{report.num_defects:8} defects" if report.num_defects else "no defects")
        return Outcome("\n".join(lines), asdict(report), code=1 if report.num_defects else 0)


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show samples as a contact sheet: picture, captions, views as they are replayed, the teachers' opinions.

    Prints what DATA holds: teachers, codec and its error, views, sizes, counts. Numbers on the sheet are cosines of a
    view and a caption by one teacher; the caption nearest to a view is framed, and one of another sample that is nearer
    still is named in red.

    Examples:
        pocketclip inspect reinforced/ --out sheet.png
        pocketclip inspect reinforced/train/000000.tar --out sheet.png -n 4 --views 6
        pocketclip inspect reinforced/ --out sheet.png --key twemoji-1f430
    """

    data: Positional[str]
    """A packed or reinforced folder, published shards, or one of our shards."""
    out: Annotated[Path | None, arg(metavar="SHEET.png", help_behavior_hint="(default: none)")] = None
    """The contact sheet."""
    num_samples: Annotated[int, arg(aliases=["-n"])] = 8
    """Samples on it, spread evenly."""
    views: int = 4
    """Views of each, spread evenly."""
    key: Annotated[
        tuple[str, ...], arg(metavar="KEY ...", help_behavior_hint="(default: spread evenly)")
    ] = ()
    """Show these samples instead."""
    split: Annotated[str | None, arg(help_behavior_hint="(default: the first)")] = None
    """Split of a packed folder."""
    teacher: Annotated[
        tuple[str, ...],
        arg(metavar="NAME=WIDTH@SCALE ...", help_behavior_hint="(default: the published ones)"),
    ] = ()
    """Of published shards: other teachers, in the order of their columns."""
    augment: Annotated[Path | None, arg(metavar="CONFIG", help_behavior_hint="(default: found out)")] = None
    """Of published shards: the set's config.json."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Inspects."""
        from pocketclip.inspect import InspectConfig, inspect

        config = InspectConfig(
            num_samples=self.num_samples,
            num_views=self.views,
            keys=self.key,
            split=self.split,
            teachers=parse_teachers(self.teacher),
            augment=self.augment,
        )
        summary = inspect(self.data, out=self.out, config=config)
        lines = [f"{about:9} {line}" for about, line in summary.facts()]
        if self.out is not None:
            lines.append(f"{'sheet':9} {self.out}: {len(summary.looked_at)} samples")
        return Outcome("\n".join(lines), summary.to_json())
