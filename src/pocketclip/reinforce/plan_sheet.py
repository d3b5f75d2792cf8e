"""The cost sheet: what a reinforcement takes in bytes and time, for one sample and for all, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketclip.data.codec import Codec
from pocketclip.data.sample import JsonValue

WHOLE = ("picture", "captions", "tar", "frame")
"""Parts of a sample's bytes that are there without reinforcement; `frame` is its share of what belongs to its shard."""

_LABELS = {
    "picture": "picture",
    "captions": "captions and details",
    "tar": "tar headers, padding",
    "frame": "of the shard's frame",
    "parameters": "augmentation parameters",
    "shared": "offsets, bases",
    "read": "reading the input",
    "decode": "decoding",
    "augment": "augmenting",
    "encode": "encoding",
    "write": "writing",
}
_KINDS = {"image": "image tower", "text": "text tower", "caption": "captioner"}
_UNITS = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class CostSheet:
    """What a reinforcement would cost.

    Attributes:
        num_samples: of the whole data set.
        num_shards: of it.
        num_measured: samples that were measured.
        sample_bytes: codec -> part -> bytes of a sample, means.
        sample_seconds: part -> seconds of a worker for a sample; None where nobody knows.
        given: parts whose seconds come from rates that the user gave.
        worker_s: seconds that a worker takes for a sample, all parts together; None where nobody knows.
        waits: whether the teachers wait for pictures.
        codec: of the configuration.
        num_workers: that share the work.
        price_per_hour: of a worker; None where nobody said.
        worker: what a worker is.
        assumptions: sentences.
    """

    num_samples: int
    num_shards: int
    num_measured: int
    sample_bytes: Mapping[Codec, Mapping[str, float]]
    sample_seconds: Mapping[str, float | None]
    given: frozenset[str]
    worker_s: float | None
    waits: bool
    codec: Codec
    num_workers: int
    price_per_hour: float | None
    worker: str
    assumptions: tuple[str, ...]

    def total_bytes(self, codec: Codec) -> int:
        """Of the whole reinforced data set."""
        return round(self.num_samples * sum(self.sample_bytes[codec].values()))

    def reinforcement_bytes(self, codec: Codec) -> int:
        """Of what reinforcement adds to pictures and captions."""
        added = (value for part, value in self.sample_bytes[codec].items() if part not in WHOLE)
        return round(self.num_samples * sum(added))

    @property
    def worker_hours(self) -> float | None:
        """Of all workers together."""
        return None if self.worker_s is None else self.num_samples * self.worker_s / _HOUR

    @property
    def price(self) -> float | None:
        """Of all worker-hours."""
        if self.worker_hours is None or self.price_per_hour is None:
            return None
        return self.worker_hours * self.price_per_hour

    def to_json(self) -> dict[str, JsonValue]:
        """Everything, as JSON."""
        hours = self.worker_hours
        sentences: list[JsonValue] = list(self.assumptions)
        given: list[JsonValue] = [*sorted(self.given)]
        return {
            "num_samples": self.num_samples,
            "num_shards": self.num_shards,
            "num_measured": self.num_measured,
            "sample_bytes": {codec: dict(parts) for codec, parts in self.sample_bytes.items()},
            "total_bytes": {codec: self.total_bytes(codec) for codec in self.sample_bytes},
            "reinforcement_bytes": {codec: self.reinforcement_bytes(codec) for codec in self.sample_bytes},
            "sample_seconds": dict(self.sample_seconds),
            "given": given,
            "worker_seconds": self.worker_s,
            "worker_hours": hours,
            "hours": None if hours is None else hours / self.num_workers,
            "num_workers": self.num_workers,
            "worker": self.worker,
            "price_per_hour": self.price_per_hour,
            "price": self.price,
            "codec": self.codec,
            "assumptions": sentences,
        }

    def text(self) -> str:
        """For people to read."""
        lines = [
            f"{self.num_samples:,} samples in {self.num_shards:,} shards; measured on {self.num_measured}, nothing was "
            "written",
            "",
            *self._bytes_table(),
            "",
            *self._seconds_table(),
            "",
            *self._totals(),
            "",
            "assumed:",
            *(f"- {sentence}" for sentence in self.assumptions),
        ]
        return "\n".join(lines)

    def _bytes_table(self) -> list[str]:
        codecs = list(self.sample_bytes)
        rows = [["bytes of a sample", *codecs]]
        rows += [
            [label(part), *(f"{self.sample_bytes[codec][part]:,.0f}" for codec in codecs)]
            for part in self.sample_bytes[self.codec]
        ]
        rows.append(["all", *(f"{sum(self.sample_bytes[codec].values()):,.0f}" for codec in codecs)])
        rows.append(["all samples", *(readable(self.total_bytes(codec)) for codec in codecs)])
        added = [readable(self.reinforcement_bytes(codec)) for codec in codecs]
        rows.append(["of it reinforcement", *added])
        return _aligned(rows)

    def _seconds_table(self) -> list[str]:
        known = sum(value for value in self.sample_seconds.values() if value is not None)
        rows = [["milliseconds of a sample", "", "share"]]
        for part, seconds in self.sample_seconds.items():
            name = label(part) + (f" ({self.codec})" if part == "encode" else "")
            cells = ["?", ""] if seconds is None else [f"{1e3 * seconds:,.3f}", f"{seconds / known:.0%}"]
            rows.append([name + (", as given" if part in self.given else ""), *cells])
        return _aligned(rows)

    def _totals(self) -> list[str]:
        if self.worker_s is None:
            unknown = [part for part, seconds in self.sample_seconds.items() if seconds is None]
            return [f"time: nobody knows how fast these are, say so with --rate: {' '.join(unknown)}"]
        hours = self.worker_hours
        assert hours is not None
        lines = [
            f"{1 / self.worker_s:,.1f} samples/s for a worker ({self.worker})",
            f"{hours:,.1f} worker-hours; {_duration(hours / self.num_workers)} with "
            + ("1 worker" if self.num_workers == 1 else f"{self.num_workers:,} workers"),
        ]
        if self.price is not None:
            lines.append(f"{self.price:,.2f} at {self.price_per_hour:,.2f} for an hour of a worker")
        if self.waits:
            lines.append(
                "the teachers wait for pictures: more --loaders would help, where there are cores for them"
            )
        return lines


def label(part: str) -> str:
    """A part in words: `image/NAME` is the image tower of NAME."""
    kind, separator, name = part.partition("/")
    return f"{_KINDS[kind]} of {name}" if separator else _LABELS[part]


def readable(num_bytes: float) -> str:
    """Bytes in a unit of thousands: 46.7 TB."""
    for size, unit in _UNITS:
        if num_bytes >= size:
            return f"{num_bytes / size:,.2f} {unit}"
    return f"{num_bytes:,.0f} B"


def _duration(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of one width, the first on the left, the others on the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
