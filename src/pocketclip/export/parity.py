"""The gate: an exported model is compared, from pictures and texts to embeddings, with its checkpoint.

Shapes: N probes, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pocketclip.checkpoint import Loaded
from pocketclip.export.agreement import agreement
from pocketclip.export.config import ExportConfig
from pocketclip.export.probes import Probes
from pocketclip.export.report import ParityError, ParityReport, compare
from pocketclip.runtime import Manifest

_LENGTH_TOLERANCE = 1e-3
_BATCH = 32


class Judged(Protocol):
    """What the gate asks; `ExportedModel` answers, and so does a page in a browser."""

    @property
    def manifest(self) -> Manifest:
        """How it is to be fed."""
        ...

    @property
    def tokenizer(self) -> Callable[[Sequence[str]], npt.NDArray[np.int64]]:
        """Texts to ids [B, L]."""
        ...

    def embed_images(self, images: Sequence[Image.Image], *, batch_size: int) -> npt.NDArray[np.float32]:
        """Pictures to rows of length 1."""
        ...

    def embed_texts(self, texts: Sequence[str], *, batch_size: int) -> npt.NDArray[np.float32]:
        """Texts to rows of length 1."""
        ...


def embed_reference(
    reference: Loaded, probes: Probes, *, towers: Sequence[str] = ("image", "text")
) -> dict[str, npt.NDArray[np.float32]]:
    """What the checkpoint itself, un-folded, makes of the probes: tower -> float32 [N, D].

    Raises:
        ParityError: these embeddings are not finite or not of length 1, so nothing can be compared with them.
    """
    embeds: dict[str, npt.NDArray[np.float32]] = {}
    with torch.inference_mode():
        if "image" in towers:
            rows = [
                reference.model.encode_image(
                    torch.stack(
                        [reference.preprocess(image) for image in probes.images[start : start + _BATCH]]
                    ),
                    normalize=True,
                )
                for start in range(0, len(probes.images), _BATCH)
            ]
            embeds["image"] = torch.cat(rows).numpy()
        if "text" in towers:
            rows = [
                reference.model.encode_text(
                    reference.tokenize(list(probes.texts[start : start + _BATCH])), normalize=True
                )
                for start in range(0, len(probes.texts), _BATCH)
            ]
            embeds["text"] = torch.cat(rows).numpy()
    for tower, embed_ND in embeds.items():
        length_N = np.linalg.norm(embed_ND, axis=1)
        if not (np.abs(length_N - 1) < _LENGTH_TOLERANCE).all():  # also true where it is not a number
            raise ParityError(
                f"the checkpoint's own {tower} tower gives embeddings that are not finite or not of length 1: "
                f"its weights are broken (a diverged run?); export an earlier checkpoint, or train again"
            )
    return embeds


def measure(
    exported: Judged,
    *,
    reference: Loaded,
    expected: Mapping[str, npt.NDArray[np.float32]],
    probes: Probes,
    config: ExportConfig,
) -> ParityReport:
    """Runs the exported model on the probes, its own preprocessing and tokenizer included, and compares.

    Args:
        exported: the folder under test, or the page in it.
        reference: the checkpoint.
        expected: its embeddings of the probes, from `embed_reference`.
        probes: inputs.
        config: batch sizes and thresholds.

    Raises:
        ParityError: the exported model cannot run.
    """
    towers = []
    found: dict[str, npt.NDArray[np.float32]] = {}
    for batch_size in config.batch_sizes:
        try:
            for tower in expected:
                embed_ND = (
                    exported.embed_images(probes.images, batch_size=batch_size)
                    if tower == "image"
                    else exported.embed_texts(probes.texts, batch_size=batch_size)
                )
                towers.append(compare(embed_ND, expected[tower], tower=tower, batch_size=batch_size))
                found[tower] = embed_ND
        except ValueError as error:
            raise ParityError(
                f"the exported model does not run at batch size {batch_size}: {error}"
            ) from error
    pairs = slice(probes.num_pairs)
    agreed = None
    if {"image", "text"} <= set(found) and all(entry.finite for entry in towers):
        agreed = agreement(
            {tower: embed_ND[pairs] for tower, embed_ND in found.items()},
            {tower: embed_ND[pairs] for tower, embed_ND in expected.items()},
            seed=config.seed,
        )
    return ParityReport(
        towers=tuple(towers),
        agreement=agreed,
        allowed=config.gate,
        problems=tuple(_other_inputs(exported, reference, probes)),
    )


def _other_inputs(exported: Judged, reference: Loaded, probes: Probes) -> list[str]:
    """What feeds the towers otherwise than the checkpoint feeds its own."""
    found, expected = exported.manifest.preprocess, reference.config.preprocess
    problems = [
        f"preprocessing: {name} is {getattr(found, name)} and the checkpoint's is {getattr(expected, name)}"
        for name in ("size", "mean", "std", "interpolation")
        if getattr(found, name) != getattr(expected, name)
    ]
    if "text" in exported.manifest.towers:
        texts = list(probes.texts)
        mine_NL, theirs_NL = exported.tokenizer(texts), reference.tokenize(texts).numpy()
        if mine_NL.shape != theirs_NL.shape:
            problems.append(
                f"tokenizer: context {mine_NL.shape[1]} and the checkpoint's is {theirs_NL.shape[1]}"
            )
        elif (mine_NL != theirs_NL).any():
            row = int((mine_NL != theirs_NL).any(axis=1).argmax())
            problems.append(f"tokenizer: other tokens than the checkpoint's for {texts[row][:40]!r}")
    return problems
