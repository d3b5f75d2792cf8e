"""Zero-shot classes and how often they are right: accuracy, per class, per group, macro-F1, calibration; without torch.

Every metric takes weights, how many times each picture counts, so that intervals are drawn for any of them
(`resample.py`). N: pictures, C: classes, D: embedding, G: groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_ROWS = 4096
_CLIP_SCALE = 100.0


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model takes pictures for.

    Attributes:
        top: int64 [N, K], the likeliest classes, K at most 5, likeliest first.
        confidence: float64 [N] in 0..1, the probability of the first.
    """

    top: Ints
    confidence: Floats


def predict(
    images_ND: NDArray[np.float32], classes_CD: NDArray[np.float32], *, logit_scale: float = _CLIP_SCALE
) -> Predictions:
    """The five likeliest classes of every picture; of equal scores the earlier class comes first.

    Args:
        images_ND: unit-norm rows.
        classes_CD: unit-norm rows.
        logit_scale: what cosines are multiplied with before the softmax.
    """
    count = min(5, len(classes_CD))
    tops, confidences = [], []
    for start in range(0, len(images_ND), _ROWS):
        cosine = images_ND[start : start + _ROWS] @ classes_CD.T
        some = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        score = np.take_along_axis(cosine, some, axis=1)
        order = np.lexsort((some, -score), axis=1)
        top = np.take_along_axis(some, order, axis=1)
        # of several equal maxima argpartition may keep any
        first = cosine.argmax(axis=1)
        at = (top == first[:, None]).argmax(axis=1)
        kept = np.where((top == first[:, None]).any(axis=1), at, count - 1)
        top[np.arange(len(top)), kept] = top[:, 0]
        top[:, 0] = first
        tops.append(top)
        best = cosine[np.arange(len(top)), first].astype(np.float64)
        odds = np.exp(logit_scale * (cosine - best[:, None].astype(np.float32))).sum(axis=1, dtype=np.float64)
        confidences.append(1.0 / odds)
    if not tops:
        return Predictions(top=np.empty((0, count), np.int64), confidence=np.empty(0))
    return Predictions(
        top=np.concatenate(tops).astype(np.int64), confidence=np.concatenate(confidences).astype(np.float64)
    )


def hits(top_NK: Ints, label_N: Ints, *, k: int = 1) -> Floats:
    """[N] 1.0 where the label is among the first k, else 0.0."""
    return (top_NK[:, :k] == label_N[:, None]).any(axis=1).astype(np.float64)


def mean(values_N: Floats, weights_N: Floats | None = None) -> float:
    """Weighted mean; NaN where nothing counts."""
    if weights_N is None:
        return float(values_N.mean()) if len(values_N) else float("nan")
    total = weights_N.sum()
    return float((values_N * weights_N).sum() / total) if total else float("nan")


def class_recall(label_N: Ints, predicted_N: Ints, weights_N: Floats | None = None) -> Floats:
    """[C] share of each class's pictures that were taken for it; NaN for classes without pictures."""
    right = _counts(
        label_N[label_N == predicted_N], _where(weights_N, label_N == predicted_N), label_N.max() + 1
    )
    total = _counts(label_N, weights_N, label_N.max() + 1)
    return _share(right, total)


def mean_per_class_recall(label_N: Ints, predicted_N: Ints, weights_N: Floats | None = None) -> float:
    """Mean recall over the classes that have pictures, 0..1; scikit-learn's balanced accuracy."""
    return float(np.nanmean(class_recall(label_N, predicted_N, weights_N)))


def macro_f1(label_N: Ints, predicted_N: Ints, weights_N: Floats | None = None) -> float:
    """Mean F1 over the classes that have pictures, 0..1, as WILDS takes it (arXiv 2012.07421): F1-macro_all."""
    num = int(max(label_N.max(), predicted_N.max())) + 1
    same = label_N == predicted_N
    right = _counts(label_N[same], _where(weights_N, same), num)
    total, claimed = _counts(label_N, weights_N, num), _counts(predicted_N, weights_N, num)
    f1 = _share(2 * right, total + claimed)
    return float(f1[total > 0].mean()) if (total > 0).any() else float("nan")


def group_means(values_N: Floats, group_N: Ints, weights_N: Floats | None = None) -> tuple[Floats, Floats]:
    """Mean value of each group [G], NaN where it is empty, and how many pictures it has [G]."""
    num = int(group_N.max()) + 1
    scale = np.ones(len(values_N)) if weights_N is None else weights_N
    count = _counts(group_N, scale, num)
    return _share(_counts(group_N, values_N * scale, num), count), count


def worst_group(values_N: Floats, group_N: Ints, weights_N: Floats | None = None) -> float:
    """The lowest of the groups' means; groups without pictures do not count."""
    means, _ = group_means(values_N, group_N, weights_N)
    return float(np.nanmin(means))


def calibration_error(confidence_N: Floats, right_N: Floats, *, num_bins: int = 15) -> float:
    """Expected calibration error, 0..1: mean distance of confidence and accuracy over equal bins (arXiv 1706.04599)."""
    if not len(confidence_N):
        return float("nan")
    bin_N = np.minimum((confidence_N * num_bins).astype(np.int64), num_bins - 1)
    claimed = np.bincount(bin_N, weights=confidence_N, minlength=num_bins)
    right = np.bincount(bin_N, weights=right_N, minlength=num_bins)
    return float(np.abs(claimed - right).sum() / len(confidence_N))


def _where(weights_N: Floats | None, mask_N: NDArray[np.bool_]) -> Floats | None:
    return None if weights_N is None else weights_N[mask_N]


def _counts(group_N: Ints, weights_N: Floats | None, num: int) -> Floats:
    return np.bincount(group_N, weights=weights_N, minlength=int(num)).astype(np.float64)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
