"""A linear classifier on frozen features: softmax regression by L-BFGS, its penalty chosen on held-out pictures.

N: pictures, D: features, C: classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

_STEPS = 300


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fitted classifier.

    Attributes:
        mean_D: of the training features.
        scale_D: what centred features are divided by: their standard deviation, or 1 where they do not vary.
        weight_CD: of standardised features.
        bias_C: added.
        penalty: that it was fitted with.
    """

    mean_D: NDArray[np.float64]
    scale_D: NDArray[np.float64]
    weight_CD: NDArray[np.float64]
    bias_C: NDArray[np.float64]
    penalty: float

    def scores(self, features_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits [N, C] of features [N, D]."""
        return ((features_ND - self.mean_D) / self.scale_D) @ self.weight_CD.T + self.bias_C


def fit_linear(
    features_ND: NDArray[np.float32],
    label_N: NDArray[np.int64],
    *,
    num_classes: int,
    penalty: float,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Softmax regression: mean cross-entropy + penalty / 2 · ||W||² of standardised features, the bias not penalised.

    scikit-learn's LogisticRegression has the same minimum at C = 1 / (penalty · N).

    Args:
        features_ND: [N, D] of the training pictures.
        label_N: [N] in 0..num_classes-1.
        num_classes: C.
        penalty: above 0.
        start: a classifier of the same features to begin with.
    """
    mean_D = features_ND.mean(axis=0, dtype=np.float64)
    scale_D = features_ND.std(axis=0, dtype=np.float64)
    scale_D[scale_D < 1e-12] = 1.0
    x_ND = torch.from_numpy((features_ND - mean_D) / scale_D)
    y_N = torch.from_numpy(label_N)
    shape = (num_classes, features_ND.shape[1])
    weight_CD = torch.zeros(shape, dtype=torch.float64) if start is None else torch.tensor(start.weight_CD)
    bias_C = torch.zeros(num_classes, dtype=torch.float64) if start is None else torch.tensor(start.bias_C)
    for parameter in (weight_CD, bias_C):
        parameter.requires_grad_(True)
    search = torch.optim.LBFGS(
        [weight_CD, bias_C],
        max_iter=_STEPS,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = F.cross_entropy(x_ND @ weight_CD.T + bias_C, y_N) + 0.5 * penalty * weight_CD.square().sum()
        value.backward()
        return value

    search.step(loss)
    return LinearProbe(
        mean_D=mean_D,
        scale_D=scale_D,
        weight_CD=weight_CD.detach().numpy(),
        bias_C=bias_C.detach().numpy(),
        penalty=penalty,
    )


def choose_penalty(
    features_ND: NDArray[np.float32],
    label_N: NDArray[np.int64],
    held_N: NDArray[np.bool_],
    *,
    num_classes: int,
    penalties: Sequence[float],
) -> tuple[float, dict[float, float]]:
    """The penalty with the best accuracy on held-out pictures, the stronger one of equals.

    Args:
        features_ND: [N, D] of the training pictures.
        label_N: [N].
        held_N: [N] which pictures are held out.
        num_classes: C.
        penalties: to try, each above 0.

    Returns:
        The penalty, and the accuracy of each, 0..1.
    """
    accuracy: dict[float, float] = {}
    found = None
    for penalty in sorted(penalties, reverse=True):
        found = fit_linear(
            features_ND[~held_N], label_N[~held_N], num_classes=num_classes, penalty=penalty, start=found
        )
        taken_N = found.scores(features_ND[held_N]).argmax(axis=1)
        accuracy[penalty] = float((taken_N == label_N[held_N]).mean())
    return max(accuracy, key=lambda penalty: (accuracy[penalty], penalty)), accuracy


def hold_out(label_N: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.bool_]:
    """[N] a share of every class, drawn by seed; of a class at least one picture stays.

    Raises:
        ValueError: no class has two pictures, so that none can be held out.
    """
    rng = np.random.default_rng(seed)
    held_N = np.zeros(len(label_N), dtype=bool)
    for label in np.unique(label_N):
        rows = rng.permutation(np.flatnonzero(label_N == label))
        held_N[rows[: min(len(rows) - 1, max(1, round(share * len(rows))))]] = True
    if not held_N.any():
        raise ValueError(
            "no class has two training pictures, so none can be held out to choose the penalty: give more"
        )
    return held_N
