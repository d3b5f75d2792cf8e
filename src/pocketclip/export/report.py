"""What the gate measured, and whether it holds.

Shapes: N probes, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from pocketclip.data.sample import JsonValue
from pocketclip.export.agreement import Agreement
from pocketclip.export.config import Allowed

_SHARES = ("top1", "recall10", "zero_shot", "margin")


@dataclass(frozen=True, kw_only=True)
class TowerParity:
    """One tower at one batch size, over all probes.

    Attributes:
        tower: "image" or "text".
        batch_size: rows of a run; the last run may have fewer.
        num_probes: N.
        finite: whether the exported tower gave finite numbers only.
        max_difference: largest absolute difference of a channel of the unit-norm embeddings; None if not finite.
        mean_difference: mean absolute difference; None if not finite.
        min_cosine: of the worst probe, -1 to 1; None if not finite.
        mean_cosine: over all probes; None if not finite.
        worst_probe: row of the probe with the largest difference, counted from 0.
    """

    tower: str
    batch_size: int
    num_probes: int
    finite: bool
    max_difference: float | None
    mean_difference: float | None
    min_cosine: float | None
    mean_cosine: float | None
    worst_probe: int

    def numbers(self) -> str:
        """For people."""
        if self.max_difference is None or self.min_cosine is None or self.mean_cosine is None:
            return "not finite"
        return (
            f"largest difference {self.max_difference:.1e}, smallest cosine {self.min_cosine:.7f}, mean "
            f"{self.mean_cosine:.7f} over {self.num_probes} probes (worst: {self.worst_probe})"
        )


@dataclass(frozen=True, kw_only=True)
class LayerDifference:
    """A layer of an exported tower against the same layer of the checkpoint.

    Attributes:
        tower: "image" or "text".
        layer: its name in the graph, module and operation.
        cosine: of its output with the checkpoint's.
        own_error: how much of 1 - cosine arose in the layer itself and not before it.
    """

    tower: str
    layer: str
    cosine: float
    own_error: float


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What the gate measured and what it allowed.

    Attributes:
        towers: one entry for each tower and batch size.
        agreement: on real pictures and captions; None where there were too few.
        allowed: thresholds.
        problems: sentences about what is wrong besides numbers: preprocessing, tokens.
        layers: the layers that differ most, worst first; looked for only where the gate fails.
        was_run: False where nothing on this machine runs the target; then nothing was measured.
    """

    towers: tuple[TowerParity, ...]
    agreement: Agreement | None
    allowed: Allowed
    problems: tuple[str, ...] = ()
    layers: tuple[LayerDifference, ...] = ()
    was_run: bool = True

    @property
    def failures(self) -> tuple[TowerParity, ...]:
        """The entries that do not hold."""
        return tuple(entry for entry in self.towers if not self._holds(entry))

    @property
    def passed(self) -> bool:
        """Whether everything was measured, and holds."""
        return self.was_run and not (self.failures or self.problems or any(self.disagreements()))

    def disagreements(self) -> Iterator[str]:
        """Shares that are too small, in words."""
        if self.agreement is None:
            return
        for name in _SHARES:
            found, allowed = getattr(self.agreement, name), getattr(self.allowed, name)
            if found < allowed:
                yield f"{name} agreement {found:.3f} (allowed {allowed:g})"

    def worst(self, tower: str) -> TowerParity | None:
        """The entry of a tower with the largest difference."""
        entries = [entry for entry in self.towers if entry.tower == tower]
        return max(
            entries,
            key=lambda one: np.inf if one.max_difference is None else one.max_difference,
            default=None,
        )

    def _holds(self, entry: TowerParity) -> bool:
        if (
            not entry.finite
            or entry.max_difference is None
            or entry.min_cosine is None
            or entry.mean_cosine is None
        ):
            return False
        return (
            entry.max_difference <= self.allowed.max_difference
            and entry.min_cosine >= self.allowed.min_cosine
            and entry.mean_cosine >= self.allowed.mean_cosine
        )

    def to_json(self) -> dict[str, JsonValue]:
        """Plain JSON values."""
        return {
            "passed": self.passed,
            "was_run": self.was_run,
            "allowed": asdict(self.allowed),
            "towers": [asdict(entry) for entry in self.towers],
            "agreement": None if self.agreement is None else asdict(self.agreement),
            "problems": list(self.problems),
            "layers": [asdict(layer) for layer in self.layers],
        }

    def __str__(self) -> str:
        """A line for each entry."""
        lines = [
            f"{entry.tower} tower, batches of {entry.batch_size}: {entry.numbers()}"
            f"{'' if self._holds(entry) else '  FAILED'}"
            for entry in self.towers
        ]
        return "\n".join([*lines, *self.problems])


class ParityError(ValueError):
    """An export that differs from its checkpoint; the sentence says where and by how much.

    Attributes:
        report: everything that was measured; None when the towers could not be compared at all.
    """

    def __init__(self, sentence: str, *, report: ParityReport | None = None) -> None:
        super().__init__(sentence)
        self.report = report


def compare(
    found_ND: npt.NDArray[np.float32], expected_ND: npt.NDArray[np.float32], *, tower: str, batch_size: int
) -> TowerParity:
    """Differences of two sets of unit-norm embeddings [N, D], row by row."""
    num_probes = len(expected_ND)
    finite = found_ND.shape == expected_ND.shape and bool(np.isfinite(found_ND).all())
    if not finite:
        return TowerParity(
            tower=tower,
            batch_size=batch_size,
            num_probes=num_probes,
            finite=False,
            max_difference=None,
            mean_difference=None,
            min_cosine=None,
            mean_cosine=None,
            worst_probe=0,
        )
    found, expected = found_ND.astype(np.float64), expected_ND.astype(np.float64)
    difference_N = np.abs(found - expected).max(axis=1)
    norms_N = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosine_N = (found * expected).sum(axis=1) / np.maximum(norms_N, np.finfo(np.float64).tiny)
    return TowerParity(
        tower=tower,
        batch_size=batch_size,
        num_probes=num_probes,
        finite=True,
        max_difference=float(difference_N.max()),
        mean_difference=float(np.abs(found - expected).mean()),
        min_cosine=float(cosine_N.min()),
        mean_cosine=float(cosine_N.mean()),
        worst_probe=int(difference_N.argmax()),
    )


def require(report: ParityReport) -> None:
    """Raises when the report does not hold.

    Raises:
        ParityError: naming each tower that differs, what was measured and what is allowed, and the worst layers.
    """
    if report.passed or not report.was_run:
        return
    measured = list(report.problems)
    for tower in dict.fromkeys(entry.tower for entry in report.failures):
        worst = report.worst(tower)
        assert worst is not None
        sizes = ", ".join(str(entry.batch_size) for entry in report.failures if entry.tower == tower)
        measured.append(f"{tower} tower, batches of {sizes}: {worst.numbers()}")
    measured += report.disagreements()
    if report.layers:
        named = [f"{one.tower} {one.layer} (cosine {one.cosine:.4f})" for one in report.layers[:3]]
        measured.append(f"the layers that differ most: {', '.join(named)}")
    allowed = report.allowed
    raise ParityError(
        f"the exported model differs from its checkpoint: {'; '.join(measured)} "
        f"(allowed: difference {allowed.max_difference:g}, cosine {allowed.min_cosine:g}). Nothing was published: "
        f"choose another precision, or --force to publish it marked as failed",
        report=report,
    )
