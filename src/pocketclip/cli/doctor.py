"""The verb that examines data: doctor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from pocketclip.cli.verbs import SHOWN, Outcome

if TYPE_CHECKING:
    from pocketclip.search.doctor import Diagnosis


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Find what is wrong with a shard set: copies, leaks between splits, mislabelled captions, outliers.

    SHARDS is a folder that `pocketclip pack`, `reinforce` or `filter` wrote; or WebDataset tars: one, a pattern, or a
    folder of them, whose subfolders are the splits. Every sample is decoded and embedded once, by a model exported with
    `pocketclip export`. OUT gets doctor.html, one page with pictures and a map of what the set covers; doctor.json; and
    lists of keys, one a line. The set itself is not changed; `--clean` writes a packed folder without some of them.

    Examples:
        pocketclip doctor shards/ report/ --model exported/
        pocketclip doctor shards/ report/ --model exported/ --clean clean/ --without drop mislabelled
        pocketclip doctor "pool/{00000..00127}.tar" report/ --model exported/ --near 0.97
    """

    shards: Positional[str]
    """What to examine."""
    out: Positional[Path]
    """Folder for page and lists."""
    model: Path
    """Folder written by `pocketclip export`, with both towers."""
    clean: Annotated[Path | None, arg(help_behavior_hint="(default: none)")] = None
    """Packed folder to make of what is left; it copies nothing."""
    without: Annotated[
        tuple[Literal["drop", "leaked", "duplicates", "mislabelled", "outliers", "captions"], ...],
        arg(metavar="LIST ..."),
    ] = ("drop",)
    """What `--clean` leaves out: leaked, duplicates, mislabelled, outliers, captions; drop is what leaks, what is there
    twice byte for byte, and what has no caption."""
    near: float = 0.95
    """Cosine from which on pictures may be copies; their pixels have the last word."""
    alike: float = 0.95
    """Correlation of the pixels of copies, at 16 x 16."""
    misfit: float = 4.0
    """Standard deviations by which other captions fit better than a mislabelled one."""
    alone: float = 3.5
    """Standard deviations by which an outlier is farther from its nearest than is usual."""
    map: int = 5000
    """Samples on the map, drawn at random where there are more."""
    listed: int = 60
    """Findings of each kind on the page; doctor.json has all."""
    batch_size: int = 32
    """Pictures a run of the network."""
    threads: Annotated[int | None, arg(help_behavior_hint="(default: one per core)")] = None
    """Threads of the network."""
    seed: int = 0
    """Of what is random: the map, and what large sets are compared with."""
    json: bool = False
    """Print JSON."""

    def run(self) -> Outcome:
        """Examines."""
        from pocketclip.search.doctor import DoctorConfig, check_cleanable, examine, write_clean

        config = DoctorConfig(
            near=self.near,
            alike=self.alike,
            misfit=self.misfit,
            alone=self.alone,
            max_map=self.map,
            listed=self.listed,
            batch_size=self.batch_size,
            threads=self.threads,
            seed=self.seed,
        )
        if self.clean is not None:
            check_cleanable(self.shards, self.clean)
        diagnosis = examine(self.shards, self.out, model=self.model, config=config)
        text, values = _told(diagnosis, self.out), _values(diagnosis, self.out)
        if self.clean is not None:
            left = write_clean(diagnosis, self.clean, without=self.without)
            text += "".join(
                f"\n{num:8,} samples of {split} left in {self.clean}" for split, num in left.items()
            )
            values["clean"] = left
        return Outcome(text, values)


def _told(diagnosis: Diagnosis, out: Path) -> str:
    values = _counts(diagnosis)
    lines = [f"{num:8,} samples in {split}" for split, num in diagnosis.splits.items()]
    lines += [f"{num:8,} {what}" for what, num in values.items()]
    worst = diagnosis.misfits[:SHOWN]
    if worst:
        lines.append("the worst captions:")
        lines += [
            f"{'':9}{diagnosis.samples[one.sample].key}: {_quoted(diagnosis, one.sample)}" for one in worst
        ]
    if diagnosis.lost:
        lines.append("the first that cannot be read:")
        lines += [f"{'':9}{lost.shard}: {lost.key or '?'}: {lost.reason}" for lost in diagnosis.lost[:SHOWN]]
    if diagnosis.coverage.projection == "PCA":
        lines.append("the map is drawn by PCA; pip install 'pocketclip[doctor]' draws it by t-SNE")
    lines.append(f"{'':9}{out}/doctor.html shows them, {out}/drop.txt lists what nobody misses")
    return "\n".join(lines)


def _quoted(diagnosis: Diagnosis, number: int) -> str:
    caption = " ".join(diagnosis.samples[number].caption.split())
    return repr(caption if len(caption) <= 70 else f"{caption[:69]}…")


def _counts(diagnosis: Diagnosis) -> dict[str, int]:
    return {
        "groups of copies across splits": len(diagnosis.leaks),
        "spare copies": sum(len(group.members) - 1 for group in diagnosis.duplicates),
        "captions that fit others better": len(diagnosis.misfits),
        "pictures like no other": len(diagnosis.outliers),
        "captions that are no good": len(diagnosis.captions),
        "samples that cannot be read": len(diagnosis.lost),
    }


def _values(diagnosis: Diagnosis, out: Path) -> dict[str, object]:
    names = ("leaks", "duplicates", "mislabelled", "outliers", "captions", "lost")
    return {
        "splits": diagnosis.splits,
        **dict(zip(names, _counts(diagnosis).values(), strict=True)),
        "lists": {name: len(numbers) for name, numbers in diagnosis.lists().items()},
        "page": str(out / "doctor.html"),
    }
