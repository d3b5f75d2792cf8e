"""The gate: an exported model is compared, from pictures and texts to embeddings, with its checkpoint.

Shapes: N probes, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from pocketclip.checkpoint import Loaded
from pocketclip.data.sample import JsonValue
from pocketclip.export.config import ExportConfig
from pocketclip.export.probes import Probes
from pocketclip.runtime import ExportedModel

_LENGTH_TOLERANCE = 1e-3


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
        worst_probe: row of the probe with the largest difference, counted from 0.
    """

    tower: str
    batch_size: int
    num_probes: int
    finite: bool
    max_difference: float | None
    mean_difference: float | None
    min_cosine: float | None
    worst_probe: int


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What the gate measured and what it allowed.

    Attributes:
        towers: one entry for each tower and batch size.
        min_cosine: allowed.
        max_difference: allowed.
    """

    towers: tuple[TowerParity, ...]
    min_cosine: float
    max_difference: float

    @property
    def failures(self) -> tuple[TowerParity, ...]:
        """The entries that do not hold."""
        return tuple(entry for entry in self.towers if not self._holds(entry))

    @property
    def passed(self) -> bool:
        """Whether every entry holds."""
        return not self.failures

    def _holds(self, entry: TowerParity) -> bool:
        if not entry.finite or entry.max_difference is None or entry.min_cosine is None:
            return False
        return entry.max_difference <= self.max_difference and entry.min_cosine >= self.min_cosine

    def to_json(self) -> dict[str, JsonValue]:
        """Plain JSON values."""
        return {
            "passed": self.passed,
            "allowed": {"min_cosine": self.min_cosine, "max_difference": self.max_difference},
            "towers": [asdict(entry) for entry in self.towers],
        }

    def __str__(self) -> str:
        """A line for each entry."""
        return "\n".join(
            f"{_describe(entry)}{'' if self._holds(entry) else '  FAILED'}" for entry in self.towers
        )


class ParityError(ValueError):
    """An export that differs from its checkpoint; the sentence says where and by how much.

    Attributes:
        report: everything that was measured; None when the towers could not be compared at all.
    """

    def __init__(self, sentence: str, *, report: ParityReport | None = None) -> None:
        super().__init__(sentence)
        self.report = report


def embed_reference(reference: Loaded, probes: Probes) -> dict[str, npt.NDArray[np.float32]]:
    """What the checkpoint itself, un-folded, makes of the probes: tower -> float32 [N, D].

    Raises:
        ParityError: these embeddings are not finite or not of length 1, so nothing can be compared with them.
    """
    with torch.inference_mode():
        image_rows = [
            reference.model.encode_image(reference.preprocess(image)[None], normalize=True)
            for image in probes.images
        ]
        text_ND = reference.model.encode_text(reference.tokenize(list(probes.texts)), normalize=True)
    embeds = {"image": torch.cat(image_rows).numpy(), "text": text_ND.numpy()}
    for tower, embed_ND in embeds.items():
        length_N = np.linalg.norm(embed_ND, axis=1)
        if not (np.abs(length_N - 1) < _LENGTH_TOLERANCE).all():  # also true where it is not a number
            raise ParityError(
                f"the checkpoint's own {tower} tower gives embeddings that are not finite or not of length 1: "
                f"its weights are broken (a diverged run?); export an earlier checkpoint, or train again"
            )
    return embeds


def measure(
    exported: ExportedModel,
    *,
    expected: Mapping[str, npt.NDArray[np.float32]],
    probes: Probes,
    config: ExportConfig,
) -> ParityReport:
    """Runs the exported model on the probes, its own preprocessing and tokenizer included, and compares.

    Args:
        exported: the folder under test.
        expected: the checkpoint's embeddings of the probes, from `embed_reference`.
        probes: inputs.
        config: batch sizes and thresholds.

    Raises:
        ParityError: the exported model cannot run.
    """
    towers = []
    for batch_size in config.batch_sizes:
        try:
            found = {
                "image": exported.embed_images(probes.images, batch_size=batch_size),
                "text": exported.embed_texts(probes.texts, batch_size=batch_size),
            }
        except ValueError as error:
            raise ParityError(
                f"the exported model does not run at batch size {batch_size}: {error}"
            ) from error
        towers += [
            compare(found[tower], expected[tower], tower=tower, batch_size=batch_size) for tower in expected
        ]
    return ParityReport(
        towers=tuple(towers), min_cosine=config.min_cosine, max_difference=config.max_difference
    )


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
        worst_probe=int(difference_N.argmax()),
    )


def require(report: ParityReport) -> None:
    """Raises when the report does not hold.

    Raises:
        ParityError: naming each tower that differs, what was measured and what is allowed.
    """
    if report.passed:
        return
    measured = []
    for tower in dict.fromkeys(entry.tower for entry in report.failures):
        entries = [entry for entry in report.failures if entry.tower == tower]
        worst = max(
            entries, key=lambda entry: np.inf if entry.max_difference is None else entry.max_difference
        )
        sizes = ", ".join(str(entry.batch_size) for entry in entries)
        measured.append(f"{tower} tower, batches of {sizes}: {_numbers(worst)}")
    raise ParityError(
        f"the exported model differs from its checkpoint: {'; '.join(measured)} "
        f"(allowed: difference {report.max_difference:g}, cosine {report.min_cosine:g}). Nothing was published: "
        f"install the versions of torch, onnx and onnxruntime of the lock file and export again",
        report=report,
    )


def _describe(entry: TowerParity) -> str:
    return f"{entry.tower} tower, batches of {entry.batch_size}: {_numbers(entry)}"


def _numbers(entry: TowerParity) -> str:
    if entry.max_difference is None or entry.min_cosine is None:
        return "not finite"
    return (
        f"largest difference {entry.max_difference:.1e}, smallest cosine {entry.min_cosine:.7f} "
        f"over {entry.num_probes} probes (worst: {entry.worst_probe})"
    )
