"""A query as one direction among the vectors: texts averaged, a picture mixed in, what is unwanted taken out.

Shapes: P phrases or prompts, S sample of an index, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

EXCLUDE = 0.4
"""How much of an unwanted text is subtracted (docs/benchmarks.md, "Excluding")."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A part of a query.

    Attributes:
        vector_D: unit vector, float32 [D].
        kind: of what; an unwanted text has a negative weight.
        weight: in the sum that is the query.
    """

    vector_D: Rows
    kind: Literal["text", "picture", "unwanted"]
    weight: float = 1.0


def combine(terms: Sequence[Term]) -> Rows:
    """The weighted sum of a query's parts as a unit vector float32 [D]."""
    return unit(total(terms))


def total(terms: Sequence[Term]) -> Rows:
    """The weighted sum of a query's parts, float32 [D]."""
    weight_P = np.array([term.weight for term in terms], dtype=np.float32)
    return weight_P @ np.stack([term.vector_D for term in terms])


def mean(embed_PD: Rows) -> Rows:
    """Mean of unit vectors float32 [P, D], of length 1 again: float32 [D]."""
    return unit(embed_PD.mean(axis=0))


def unit(embed_D: Rows) -> Rows:
    """A vector float32 [D] at length 1; zero stays zero."""
    length = float(np.linalg.norm(embed_D))
    return embed_D if length == 0 else (embed_D / length).astype(np.float32)


def balanced(text: Term, picture: Term, *, text_weight: float, sample_SD: Rows) -> list[Term]:
    """A text and a picture as parts of one query.

    Cosines with a picture spread more widely over an index than cosines with a text, so equal weights would be the
    picture's search with a trace of the text. Each is divided by the spread of its cosines over a sample first.

    Args:
        text: one part.
        picture: the other.
        text_weight: 0 for the picture alone, 1 for the text alone.
        sample_SD: vectors of the index, float32 [S, D].
    """
    shares = ((text, text_weight), (picture, 1 - text_weight))
    return [
        replace(term, weight=share / spread(sample_SD @ term.vector_D)) for term, share in shares if share
    ]


def spread(score_S: Rows) -> float:
    """Standard deviation of scores [S]; 1 where there are too few to have one."""
    deviation = float(np.std(score_S)) if len(score_S) > 1 else 0.0
    return deviation if deviation > 1e-6 else 1.0


def without(terms: Sequence[Term], unwanted_PD: Rows, *, amount: float = EXCLUDE) -> list[Term]:
    """A query's parts, with what is unwanted subtracted.

    Args:
        terms: what is wanted.
        unwanted_PD: unit vectors of texts, float32 [P, D].
        amount: of each that is taken off, for a wanted part of length 1.
    """
    length = float(np.linalg.norm(total(terms)))
    return [
        *terms,
        *(Term(vector_D=vector_D, kind="unwanted", weight=-amount * length) for vector_D in unwanted_PD),
    ]
