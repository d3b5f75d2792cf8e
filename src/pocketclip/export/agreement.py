"""What users see of an export's differences: other pictures found, other labels given, narrower margins.

Shapes: N pictures with N captions, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_WAYS = 20
_RECALL = 10
MIN_PAIRS = 20
"""With fewer pairs agreement says nothing, and is not measured."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """An exported model against its checkpoint, on real pictures and captions.

    Attributes:
        num_pairs: N.
        top1: share of pictures whose best caption is the checkpoint's.
        recall10: mean overlap of a picture's ten best captions.
        zero_shot: share of pictures whose best of 20 captions is the checkpoint's.
        margin: mean distance between the best and the second of these 20, as a share of the checkpoint's.
    """

    num_pairs: int
    top1: float
    recall10: float
    zero_shot: float
    margin: float


def agreement(
    found: dict[str, npt.NDArray[np.float32]], expected: dict[str, npt.NDArray[np.float32]], *, seed: int
) -> Agreement | None:
    """Compares retrieval and classification; None with fewer than `MIN_PAIRS` pairs.

    Args:
        found: "image" and "text" -> the export's float32 [N, D].
        expected: the checkpoint's.
        seed: of the 20 candidates.
    """
    num = len(expected["text"])
    if num < MIN_PAIRS:
        return None
    found_NN, expected_NN = (one["image"] @ one["text"].T for one in (found, expected))
    ten_found, ten_expected = (
        np.argsort(-cosine_NN, axis=1)[:, :_RECALL] for cosine_NN in (found_NN, expected_NN)
    )
    overlap = [len(np.intersect1d(a, b)) / _RECALL for a, b in zip(ten_found, ten_expected, strict=True)]
    ways_NW = _candidates(num, seed=seed)
    found_NW, expected_NW = (np.take_along_axis(one, ways_NW, axis=1) for one in (found_NN, expected_NN))
    return Agreement(
        num_pairs=num,
        top1=float((found_NN.argmax(axis=1) == expected_NN.argmax(axis=1)).mean()),
        recall10=float(np.mean(overlap)),
        zero_shot=float((found_NW.argmax(axis=1) == expected_NW.argmax(axis=1)).mean()),
        margin=float(_margin(found_NW) / max(_margin(expected_NW), 1e-9)),
    )


def _candidates(num: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Each picture's own caption and 19 others: [N, 20]."""
    rng = np.random.default_rng(seed)
    others = [rng.choice(num - 1, _WAYS - 1, replace=False) for _ in range(num)]
    return np.stack([[row, *(other + (other >= row))] for row, other in enumerate(others)])


def _margin(cosine_NW: npt.NDArray[np.float32]) -> float:
    best_N2 = np.sort(cosine_NW, axis=1)[:, -2:]
    return float((best_N2[:, 1] - best_N2[:, 0]).mean())
