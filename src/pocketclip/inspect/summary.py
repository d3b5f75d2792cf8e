"""What a folder holds, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from pocketclip.data.augment_spec import AugmentSpec
from pocketclip.data.codec_error import CodecError
from pocketclip.data.reinforcement import TeacherRecord
from pocketclip.data.sample import JsonValue
from pocketclip.inspect.seen import GROUND_TRUTH, Seen


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a folder, or a shard, holds.

    Attributes:
        layout: packed, reinforced or published.
        splits: name -> number of samples; empty where there is no index.
        num_shards: in all.
        num_samples: in all; None where nobody counted.
        num_bytes: of all shards.
        teachers: of the embeddings.
        codec: how they are stored; empty without any.
        errors: by table, what the codec cost.
        num_views: stored views of each picture.
        augment: what they were drawn from; None without any.
        row_bytes: of embeddings and parameters, of each sample; None where it is not apart from pictures.
        captions: label -> mean number a sample, of the samples looked at.
        num_dropped: that the index lists.
        looked_at: keys of the samples on the sheet.
    """

    layout: str
    splits: Mapping[str, int] = field(default_factory=dict)
    num_shards: int
    num_samples: int | None
    num_bytes: int
    teachers: tuple[TeacherRecord, ...] = ()
    codec: str = ""
    errors: Mapping[str, CodecError] = field(default_factory=dict)
    num_views: int = 0
    augment: AugmentSpec | None = None
    row_bytes: float | None = None
    captions: Mapping[str, float] = field(default_factory=dict)
    num_dropped: int = 0
    looked_at: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """Plain values."""
        return {**asdict(self), "augment": self.augment.to_json() if self.augment is not None else None}

    def facts(self) -> list[tuple[str, str]]:
        """For people: what a line is about (empty where it goes on with the one above), and the line."""
        counted = f"{self.num_samples:,} samples, " if self.num_samples is not None else ""
        splits = ", ".join(f"{name} {num:,}" for name, num in self.splits.items())
        shards = f"{self.num_shards:,} shard{'s' if self.num_shards != 1 else ''}"
        of_splits = f" ({splits})" if splits else ""
        facts = [("layout", f"{self.layout}: {counted}{shards}, {_size(self.num_bytes)}{of_splits}")]
        if self.captions:
            each = ", ".join(f"{num:g} {label}" for label, num in self.captions.items())
            facts.append(("captions", f"{each} (each of the samples looked at, on average)"))
        for number, teacher in enumerate(self.teachers):
            scale = f"logit scale {teacher.logit_scale:g}"
            line = f"{teacher.name}: {teacher.embed_dim} wide, {scale}, digest {teacher.digest}"
            facts.append(("" if number else "teachers", line))
        if self.augment is not None:
            facts.append(("views", f"{self.num_views} of each picture: {_drawn_from(self.augment)}"))
        if self.codec:
            apart = (
                f", {_size(self.row_bytes)} a sample beside its picture" if self.row_bytes is not None else ""
            )
            facts.append(("codec", f"{self.codec}{apart}"))
        for table, error in sorted(self.errors.items()):
            line = (
                f"{table}: cosine {error.cosine_mean:.6f} (worst {error.cosine_min:.6f}), distillation target off by "
                f"KL {error.target_kl:.2g}, TV {error.target_tv:.2g}"
            )
            facts.append(("", line))
        if self.num_dropped:
            facts.append(("dropped", f"{self.num_dropped:,}"))
        return facts


def mean_captions(samples: Sequence[Seen]) -> dict[str, float]:
    """Label -> mean number of captions a sample."""
    counts: dict[str, int] = {GROUND_TRUTH: 0}
    for sample in samples:
        for label, _ in sample.texts:
            counts[label] = counts.get(label, 0) + 1
    return {label: round(count / max(1, len(samples)), 2) for label, count in counts.items()}


def _drawn_from(spec: AugmentSpec) -> str:
    parts = [f"crops of {100 * spec.scale[0]:g} to {100 * spec.scale[1]:g}% ({spec.interpolation})"]
    if spec.flip:
        parts.append(f"mirrored {100 * spec.flip:g}%")
    if spec.num_ops:
        often = f", {100 * spec.rand_augment:g}% of them" if spec.rand_augment < 1 else ""
        parts.append(f"{spec.num_ops} operations of strength {spec.magnitude} of {spec.num_bins}{often}")
    if spec.translate_px:
        parts.append(f"translations in pixels of {spec.translate_px}")
    if spec.jitter:
        parts.append(f"jitter {100 * spec.jitter:g}%")
    if spec.erase:
        parts.append(f"erased {100 * spec.erase:g}%")
    return ", ".join(parts)


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
