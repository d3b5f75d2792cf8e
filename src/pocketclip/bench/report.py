"""What was measured, as records, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pocketclip.bench.config import BenchConfig
from pocketclip.checkpoint.records import structure, unstructure
from pocketclip.data.publish import publish_file

FORMAT = "pocketclip-bench"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured.

    Attributes:
        cpu: model of the processor.
        cores: that this process may use.
        device: of torch: "cpu", or a graphics card's name.
        versions: package -> version.
    """

    cpu: str
    cores: int
    device: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What a matrix product of this machine reaches, measured in the same rounds.

    Attributes:
        precision: of the arithmetic.
        threads: number of threads.
        gflops: billions of operations a second (a multiplication and an addition are two), median over rounds.
    """

    precision: str
    threads: int
    gflops: float


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A model that was measured.

    Attributes:
        source: what it was read from.
        variant: whose towers it has; None for none that is known.
        image_px: side of its pictures.
    """

    source: str
    variant: str | None
    image_px: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Attributes:
        model: name.
        tower: "image" or "text".
        backend: what ran it.
        precision: of weights and arithmetic.
        threads: number of threads.
        batch_size: pictures or texts at a time.
        image_px: side of the pictures; None for texts.
        latency_ms: of a batch, median over all calls.
        q1_ms: first quartile.
        q3_ms: third quartile.
        num_calls: that were timed.
        macs: multiply-accumulates for one picture or text; None where unknown.
        peak_share: arithmetic done over what a matrix product did in the same round, median over rounds.
        ratio: latency over that of the first row of the race in the same round, median over rounds.
        ratio_q1: first quartile of that over rounds.
        ratio_q3: third quartile.
        memory_mb: most memory while running, weights included, above that of a process with the libraries loaded.
    """

    model: str
    tower: str
    backend: str
    precision: str
    threads: int
    batch_size: int
    image_px: int | None
    latency_ms: float
    q1_ms: float
    q3_ms: float
    num_calls: int
    macs: int | None
    peak_share: float | None
    ratio: float
    ratio_q1: float
    ratio_q3: float
    memory_mb: float | None

    @property
    def per_s(self) -> float:
        """Pictures or texts a second."""
        return 1000 * self.batch_size / self.latency_ms


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """All measurements of one run.

    Attributes:
        machine: where.
        config: how.
        models: name -> what it is.
        peaks: of the machine.
        rows: races one after the other: a tower, a number of threads, a batch size and a picture size each.
        left_out: what was asked for and cannot be run, a sentence each.
    """

    machine: Machine
    config: BenchConfig
    models: Mapping[str, Contestant]
    peaks: tuple[Peak, ...]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()

    def latency_ms(self, model: str, tower: str) -> tuple[float, float, float] | None:
        """The fastest way to run a tower for one picture or text: median and quartiles; None where not measured."""
        rows = [row for row in self.rows if (row.model, row.tower, row.batch_size) == (model, tower, 1)]
        if not rows:
            return None
        best = min(rows, key=lambda row: row.latency_ms)
        return best.latency_ms, best.q1_ms, best.q3_ms

    def without_left_out(self) -> BenchReport:
        """The same, saying nothing of what was left out."""
        return replace(self, left_out=())

    def table(self) -> str:
        """Every race as aligned plain text."""
        lines = [f"{self.machine.cpu}, {self.machine.cores} cores; {self.machine.device}", ""]
        races: dict[tuple[object, ...], list[Row]] = {}
        for row in self.rows:
            size = row.image_px if self.config.sizes else None
            races.setdefault((row.tower, row.threads, row.batch_size, size), []).append(row)
        for rows in races.values():
            lines += [_title(rows[0]), *_race_table(rows), ""]
        for peak in self.peaks:
            lines.append(
                f"matrix product, {peak.precision}, {_threads(peak.threads)}: {peak.gflops:,.0f} GFLOP/s"
            )
        lines += ["", *self.left_out] if self.left_out else []
        lines.append(
            "ms: median of all calls, and quartiles; of peak: against that matrix product in the same rounds; "
            "× first: of the same round"
        )
        return "\n".join(lines)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(
            {"format": FORMAT, "version": VERSION} | unstructure(self), indent=1, allow_nan=False
        )

    @classmethod
    def read(cls, path: Path) -> BenchReport:
        """Read what `write` published.

        Raises:
            ValueError: not such a file, of another version, or damaged.
            OSError: it cannot be read.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} is not JSON ({error}): write it with `pocketclip bench --out`"
            ) from error
        if not isinstance(fields, dict) or (fields.get("format"), fields.get("version")) != (FORMAT, VERSION):
            raise ValueError(
                f"{path} is no bench of version {VERSION}: write one with `pocketclip bench --out`"
            )
        body = {key: value for key, value in fields.items() if key not in ("format", "version")}
        try:
            return structure(body, cls)
        except ValueError as error:
            raise ValueError(
                f"{path} is damaged ({error}): write it again with `pocketclip bench --out`"
            ) from error

    def write(self, path: Path) -> None:
        """Publish as JSON."""
        with publish_file(path) as file:
            file.write(self.to_json().encode())

    def values(self) -> dict[str, object]:
        """Plain values for `--json`, throughput included."""
        rows = [asdict(row) | {"per_s": row.per_s} for row in self.rows]
        return json.loads(self.to_json()) | {"rows": rows}


def _title(row: Row) -> str:
    return f"{row.tower} tower, batch {row.batch_size}, {_threads(row.threads)}"


def _threads(number: int) -> str:
    return f"{number} thread" + ("s" if number > 1 else "")


def _race_table(rows: list[Row]) -> list[str]:
    head = [
        "model",
        "backend",
        "precision",
        "px",
        "ms",
        "quartiles",
        "per s",
        "GMACs",
        "of peak",
        "MB",
        "× first",
    ]
    cells = [head]
    cells += [
        [
            row.model,
            row.backend,
            row.precision,
            "-" if row.image_px is None else str(row.image_px),
            f"{row.latency_ms:.2f}",
            f"{row.q1_ms:.2f}-{row.q3_ms:.2f}",
            f"{row.per_s:,.1f}",
            "-" if row.macs is None else f"{row.macs / 1e9:.3g}",
            "-" if row.peak_share is None else f"{100 * row.peak_share:.0f}%",
            "-" if row.memory_mb is None else f"{row.memory_mb:,.0f}",
            f"{row.ratio:.2f}",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(
            f"{cell:<{w}}" if i < 3 else f"{cell:>{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
