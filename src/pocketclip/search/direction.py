"""A query as one direction among the vectors: texts averaged, a picture mixed in, what is unwanted taken out.

Shapes: P phrases or prompts, S sample of an index, D embedding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

EXCLUDE = 0.6
"""How much of an unwanted direction is subtracted (docs/benchmarks.md, "Excluding")."""


def mean(embed_PD: Rows) -> Rows:
    """Mean of unit vectors float32 [P, D], of length 1 again: float32 [D]."""
    return unit(embed_PD.mean(axis=0))


def unit(embed_D: Rows) -> Rows:
    """A vector float32 [D] at length 1; zero stays zero."""
    length = float(np.linalg.norm(embed_D))
    return embed_D if length == 0 else (embed_D / length).astype(np.float32)


def mix(text_D: Rows, image_D: Rows, *, text_weight: float, sample_SD: Rows) -> Rows:
    """Text and picture in one query, float32 [D].

    Cosines with a picture spread more widely over an index than cosines with a text, so equal weights would be the
    picture's search with a trace of the text. Each is divided by the spread of its cosines over a sample first.

    Args:
        text_D: unit vector.
        image_D: unit vector.
        text_weight: 0 for the picture alone, 1 for the text alone.
        sample_SD: vectors of the index, float32 [S, D].
    """
    text_spread, image_spread = (spread(sample_SD @ part_D) for part_D in (text_D, image_D))
    return unit(text_weight * text_D / text_spread + (1 - text_weight) * image_D / image_spread)


def spread(score_S: Rows) -> float:
    """Standard deviation; 1 where there are too few scores to have one."""
    deviation = float(np.std(score_S)) if len(score_S) > 1 else 0.0
    return deviation if deviation > 1e-6 else 1.0


def without(wanted_D: Rows, unwanted_PD: Rows, *, amount: float = EXCLUDE) -> Rows:
    """A query with what is unwanted subtracted, float32 [D].

    Args:
        wanted_D: unit vector.
        unwanted_PD: unit vectors, float32 [P, D]; none changes nothing.
        amount: of their mean that is taken off.
    """
    if not len(unwanted_PD):
        return wanted_D
    return unit(wanted_D - amount * mean(unwanted_PD))
