"""Whose embeddings the columns of published arrays are: two unit-norm blocks of 768, a teacher each, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from pocketclip.data.reinforcement import TeacherRecord

Generation = Literal["v1", "v2"]
"""v1: DataCompDR; v2: DFNDR. They differ in teachers, and in where the rows of synthetic captions are."""

_WIDTH = 768


def _teacher(name: str, logit_scale: float, source: str) -> TeacherRecord:
    # Nobody published the digests of these weights; this cannot be mistaken for one.
    return TeacherRecord(name=name, embed_dim=_WIDTH, logit_scale=logit_scale, digest=f"published:{source}")


PUBLISHED_TEACHERS: Mapping[Generation, tuple[TeacherRecord, ...]] = {
    "v1": (
        _teacher("OpenAI-ViT-L-14", 100.0, "ViT-L-14/openai"),
        _teacher("DataComp-XL-ViT-L-14", 100.0, "ViT-L-14/datacomp_xl_s13b_b90k"),
    ),
    "v2": (
        _teacher("DFN2B-CLIP-ViT-L-14", 70.0, "apple/DFN2B-CLIP-ViT-L-14"),
        _teacher("DFN2B-CLIP-ViT-L-14-39B", 60.0, "apple/DFN2B-CLIP-ViT-L-14-39B"),
    ),
}
"""The teachers, with the logit scales that students were distilled at (arXiv 2508.20691, Table 3)."""


def split_columns(rows_NW: np.ndarray, teachers: Sequence[TeacherRecord]) -> list[np.ndarray]:
    """Each teacher's columns [N, D] of arrays that hold all of them side by side.

    Args:
        rows_NW: [N, W], W the sum of the teachers' widths.
        teachers: in the order of their columns.

    Raises:
        ValueError: the widths do not add up to W.
    """
    widths = [teacher.embed_dim for teacher in teachers]
    if rows_NW.shape[1] != sum(widths):
        raise ValueError(
            f"rows have {rows_NW.shape[1]} columns where the teachers have {' + '.join(map(str, widths))}: name the "
            f"teachers and their widths"
        )
    return np.split(rows_NW, np.cumsum(widths)[:-1], axis=1)
