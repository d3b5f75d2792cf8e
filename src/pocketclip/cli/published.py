"""The verbs between our shards and published ones: join and publish."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.verbs import Outcome, UsageError
from pocketclip.data.codec import Codec

if TYPE_CHECKING:
    from pocketclip.data.reinforcement import TeacherRecord
    from pocketclip.join import PictureSources


@dataclass(frozen=True, kw_only=True)
class Join:
    """Join published reinforcements (DataCompDR, DFNDR) with pictures, into reinforced shards that train.

    REINFORCEMENTS are tars without pictures, or with them: a folder, a pattern or a file. Pictures are found by uid, or
    by address, in the images you have; with --download, those that you lack are downloaded, politely and with limits.
    What is missing is counted by its reason and listed in OUT/missing.jsonl, downloads in OUT/downloads.sqlite.
    Every shard is made once: interrupted or killed, the same command goes on. --retry looks again for what is missing.

    Examples:
        pocketclip join DataCompDR-12M/ joined/ --images datacomp/shards/
        pocketclip join "DataCompDR-12M/{00000000..00000015}.tar" joined/ --download --captions captions.parquet
        pocketclip join DataCompDR-12M/ joined/ --images datacomp/shards/ --download --retry
    """

    reinforcements: Positional[str]
    """Published shards."""
    out: Positional[Path]
    """Folder for the joined shards."""
    images: Annotated[tuple[str, ...], arg(metavar="PATH ...", help_behavior_hint="(default: none)")] = ()
    """Tars of pictures (a folder, a pattern, a file; img2dataset's), or folders of picture files named after uids."""
    captions: Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="(default: none)")] = None
    """A table (.jsonl, .csv, .tsv, .parquet) with uid and text, where neither shards nor pictures have captions."""
    download: bool = False
    """Download pictures that are not among the images."""
    retry: bool = False
    """Look again for what an earlier run did not find or get."""
    teachers: Literal["auto", "v1", "v2"] = "auto"
    """Whose embeddings they are: v1 of DataCompDR, v2 of DFNDR; auto tells by their layout."""
    teacher: Annotated[
        tuple[str, ...],
        arg(metavar="NAME=WIDTH@SCALE ...", help_behavior_hint="(default: the published ones)"),
    ] = ()
    """Other teachers, in the order of their columns, each with its logit scale."""
    augment: Annotated[Path | None, arg(metavar="CONFIG", help_behavior_hint="(default: found out)")] = None
    """The set's config.json; else the one beside its shards, else the published one."""
    synthetic: Annotated[str, arg(metavar="REGEX")] = "^syn_text.*$"
    """Keys of synthetic captions to take."""
    tag: Annotated[str | None, arg(help_behavior_hint="(default: any)")] = None
    """What follows the names of the arrays."""
    codec: Codec = "bf16"
    """How embeddings are stored; bf16 keeps published bfloat16 as it is."""
    sha256: Literal["check", "ignore"] = "check"
    """Leave pictures out whose hash is not the published one, or take them."""
    longest_px: Annotated[int | None, arg(help_behavior_hint="(default: as they are)")] = None
    """Shrink larger pictures to this longer side, as those that were reinforced had been (DataComp's: 512)."""
    threads: int = 4
    """Threads that decode."""
    connections: int = 32
    """Downloads at the same time."""
    attempts: int = 3
    """How often a download is tried in one run."""
    timeout: float = 20.0
    """Seconds without an answer after which a download has failed."""
    max_mb: int = 64
    """Larger pictures are not downloaded."""
    user_agent: Annotated[str | None, arg(help_behavior_hint="(default: pocketclip)")] = None
    """What servers get to see."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Joins."""
        from pocketclip.join import JoinConfig, join

        config = JoinConfig(
            generation=self.teachers,
            teachers=parse_teachers(self.teacher),
            augment=self.augment,
            synthetic=self.synthetic,
            tag=self.tag,
            codec=self.codec,
            sha256=self.sha256,
            longest_px=self.longest_px,
        )
        report = join(self.reinforcements, self.out, config=config, pictures=self._pictures())
        num_samples = report.index.num_samples()
        lines = [f"{num_samples:8} samples  {self.out} ({report.num_shards} shards)"]
        missing = [(kind, str(num)) for kind, num in report.kinds.items()]
        if report.num_missing:
            lines.append(f"{report.num_missing:8} missing  {self.out / 'missing.jsonl'} lists them:")
            lines += [f"{num:>16} {kind}" for kind, num in missing]
        if report.num_loose > num_samples // 10:
            lines.append(
                f"{report.num_loose:8} pictures are far larger than all their views: they were smaller when they were "
                f"reinforced, and --longest-px shrinks them"
            )
        values = {
            "num_samples": num_samples,
            "num_shards": report.num_shards,
            "num_missing": report.num_missing,
            "missing": dict(report.kinds),
            "num_loose": report.num_loose,
        }
        return Outcome("\n".join(lines), values)

    def _pictures(self) -> PictureSources:
        from pocketclip.join import DownloadConfig, PictureSources

        limits = DownloadConfig(
            connections=self.connections,
            attempts=self.attempts,
            timeout_s=self.timeout,
            max_bytes=self.max_mb << 20,
        )
        if self.user_agent is not None:
            limits = replace(limits, user_agent=self.user_agent)
        return PictureSources(
            images=self.images,
            captions=self.captions,
            download=limits if self.download else None,
            retry=self.retry,
            num_threads=self.threads,
        )


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Write reinforced shards in the layouts of DataCompDR and DFNDR, for the tools that read those.

    v1 has the rows of one captioner's captions behind the ground truth's; v2 has those of each captioner apart. npz is
    float32, pth.gz bfloat16. Each shard becomes OUT/NAME.tar; config.json says what the views mean.

    Examples:
        pocketclip publish reinforced/ published/
        pocketclip publish reinforced/ published/ --layout v1-pth.gz --synthetic "^coca$" --with-images
    """

    data: Positional[Path]
    """Folder written by `pocketclip reinforce` or `pocketclip join`."""
    out: Positional[Path]
    """Folder for the published shards."""
    layout: Literal["v1-npz", "v1-pth.gz", "v2-npz", "v2-pth.gz"] = "v2-npz"
    """Which of the published layouts."""
    with_images: bool = False
    """Put the pictures in, too."""
    split: str = "train"
    """Split to publish."""
    synthetic: Annotated[str, arg(metavar="REGEX", help_behavior_hint="(default: all)")] = ""
    """Captioners whose captions go in."""
    side: int = 224
    """The teachers' side in pixels, for translations; shards that have their own keep it."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Publishes."""
        from pocketclip.publish import PublishConfig, publish

        config = PublishConfig(
            layout=self.layout,
            with_images=self.with_images,
            split=self.split,
            synthetic=self.synthetic,
            side=self.side,
        )
        report = publish(self.data, self.out, config=config)
        columns = ", ".join(f"{name} {width}" for name, width in report.teachers)
        lines = [
            f"{report.num_samples:8} samples  {self.out} ({report.num_shards} shards, {self.layout})",
            f"{'':8} columns  {columns}",
        ]
        if report.num_captions_left:
            lines.append(
                f"{report.num_captions_left:8} further ground-truth captions have no place in the layout"
            )
        return Outcome("\n".join(lines), asdict(report))


def parse_teachers(texts: tuple[str, ...]) -> tuple[TeacherRecord, ...]:
    """NAME=WIDTH@SCALE of each."""
    from pocketclip.data.reinforcement import TeacherRecord

    teachers = []
    for text in texts:
        name, separator, rest = text.partition("=")
        width, at, scale = rest.partition("@")
        try:
            record = TeacherRecord(
                name=name, embed_dim=int(width), logit_scale=float(scale), digest=f"published:{name}"
            )
        except ValueError:
            record = None
        if (
            record is None
            or not (name and separator and at)
            or record.embed_dim < 1
            or not record.logit_scale > 0
        ):
            raise UsageError(f"--teacher {text} is not of the form NAME=WIDTH@SCALE, as in clip=768@100")
        teachers.append(record)
    return tuple(teachers)
