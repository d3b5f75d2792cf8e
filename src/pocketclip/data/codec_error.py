"""What a codec costs: how far stored rows are from exact ones, and the distillation target from the exact one."""

# Shape suffixes: N rows, B pairs of an image and its text, D dimensions of an embedding.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

TARGET_PAIRS = 256
"""Pairs of image and text that the distillation target is compared on: a batch of this size, or of the whole shard."""

_DIGITS = 9  # sums in another order differ behind these
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class CodecError:
    """How far the stored rows of a table are from the exact ones.

    The distillation target is softmax(logit_scale * image @ text.T) over texts, and over images for the other
    direction, as in `losses.distill_loss`; it needs both tables of a teacher and is the same for both.

    Attributes:
        cosine_mean: mean cosine between a row and its stored self, in [-1, 1].
        cosine_min: the worst row's.
        target_kl: KL(exact target || stored target) in nats, mean over rows and both directions.
        target_tv: their total variation, half the sum of absolute differences, in [0, 1]; likewise.
    """

    cosine_mean: float
    cosine_min: float
    target_kl: float
    target_tv: float


def cosines(exact_ND: np.ndarray, stored_ND: np.ndarray) -> np.ndarray:
    """Float64 [N] cosines of rows; 0 where one of the two is zero."""
    exact_ND, stored_ND = exact_ND.astype(np.float64), stored_ND.astype(np.float64)
    norms_N = np.linalg.norm(exact_ND, axis=1) * np.linalg.norm(stored_ND, axis=1)
    return np.minimum((exact_ND * stored_ND).sum(axis=1) / np.maximum(norms_N, _TINY), 1.0)


def codec_error(cosine_N: np.ndarray, *, target: tuple[float, float]) -> CodecError:
    """The error of a table of one or more rows.

    Args:
        cosine_N: of every row.
        target: KL and total variation, from `target_error`.
    """
    kl, tv = target
    return CodecError(
        cosine_mean=round(float(cosine_N.mean()), _DIGITS),
        cosine_min=round(float(cosine_N.min()), _DIGITS),
        target_kl=round(kl, _DIGITS),
        target_tv=round(tv, _DIGITS),
    )


def target_error(
    *,
    image_BD: np.ndarray,
    text_BD: np.ndarray,
    stored_image_BD: np.ndarray,
    stored_text_BD: np.ndarray,
    logit_scale: float,
) -> tuple[float, float]:
    """KL (nats) and total variation between the distillation targets of exact and of stored rows.

    Args:
        image_BD: exact rows of B images.
        text_BD: exact rows of their texts.
        stored_image_BD: the images' rows, stored and decoded.
        stored_text_BD: the texts'.
        logit_scale: the teacher's.
    """
    exact_BB = logit_scale * image_BD.astype(np.float64) @ text_BD.astype(np.float64).T
    stored_BB = logit_scale * stored_image_BD.astype(np.float64) @ stored_text_BD.astype(np.float64).T
    kl, tv = [], []
    for exact, stored in ((exact_BB, stored_BB), (exact_BB.T, stored_BB.T)):
        log_exact, log_stored = _log_softmax(exact), _log_softmax(stored)
        weight = np.exp(log_exact)
        kl.append((weight * (log_exact - log_stored)).sum(axis=1).mean())
        tv.append(np.abs(weight - np.exp(log_stored)).sum(axis=1).mean() / 2)
    return max(0.0, float(np.mean(kl))), float(np.mean(tv))


def _log_softmax(logits_BB: np.ndarray) -> np.ndarray:
    shifted_BB = logits_BB - logits_BB.max(axis=1, keepdims=True)
    return shifted_BB - np.log(np.exp(shifted_BB).sum(axis=1, keepdims=True))


def pool(errors: Sequence[tuple[CodecError, int]]) -> CodecError:
    """The error of several sets of rows together: worst where a name ends in `_min` or `_max`, else the mean.

    Args:
        errors: of each set, with its number of rows; one or more sets.
    """
    num_rows = sum(num for _, num in errors)
    pooled: dict[str, float] = {}
    for field in fields(CodecError):
        values = [(getattr(error, field.name), num) for error, num in errors]
        if field.name.endswith(("_min", "_max")):
            worst = min if field.name.endswith("_min") else max
            pooled[field.name] = worst(value for value, _ in values)
        else:
            pooled[field.name] = sum(value * num for value, num in values) / num_rows
    return CodecError(**pooled)
