"""Nearest neighbours on frozen features: the k most similar training pictures vote, weighted by their similarity.

N: test pictures, M: training pictures, D: features, C: classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS = 1024


def knn_scores(
    train_MD: NDArray[np.float32],
    label_M: NDArray[np.int64],
    test_ND: NDArray[np.float32],
    *,
    num_classes: int,
    k: int,
    temperature: float,
) -> NDArray[np.float64]:
    """Votes [N, C] for each class: the sum of exp(cosine / temperature) over those of the k nearest that have it.

    As DINO (arXiv 2104.14294, appendix) evaluates features, there with k = 20 and temperature 0.07. Of equal cosines
    the earlier training picture is nearer.

    Args:
        train_MD: [M, D] unit-norm features.
        label_M: [M].
        test_ND: [N, D] unit-norm features.
        num_classes: C.
        k: neighbours; all of them where there are fewer.
        temperature: above 0.
    """
    k = min(k, len(train_MD))
    votes_NC = np.zeros((len(test_ND), num_classes))
    for start in range(0, len(test_ND), _ROWS):
        cosine_BM = test_ND[start : start + _ROWS] @ train_MD.T
        nearest_BK = np.argsort(-cosine_BM, axis=1, kind="stable")[:, :k]
        cosine_BK = np.take_along_axis(cosine_BM, nearest_BK, axis=1).astype(np.float64)
        # the largest is taken off: it scales all votes of a picture alike, and keeps exp in range
        weight_BK = np.exp((cosine_BK - cosine_BK[:, :1]) / temperature)
        rows_BK = np.broadcast_to(np.arange(len(cosine_BM))[:, None] + start, nearest_BK.shape)
        np.add.at(votes_NC, (rows_BK, label_M[nearest_BK]), weight_BK)
    return votes_NC
