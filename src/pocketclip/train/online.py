"""Teachers beside the student: they see each batch's very views and captions, and their rows join the stored ones."""

# Shape suffixes: B samples, H W C pixels, D dimensions of an embedding.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pocketclip.data.stream import Batch, StoredRows


@dataclass(frozen=True, kw_only=True)
class OnlineTeacher:
    """A teacher as training sees it.

    Attributes:
        name: in the ensemble.
        image_px: side of the pictures that it takes.
        logit_scale: to distil at.
        digest: of all that its embeddings depend on.
        encode_image: uint8 RGB [B, H, W, 3] of `image_px` to unit-norm float32 [B, D].
        encode_text: B captions to unit-norm float32 [B, D].
    """

    name: str
    image_px: int
    logit_scale: float
    digest: str
    encode_image: Callable[[np.ndarray], np.ndarray]
    encode_text: Callable[[Sequence[str]], np.ndarray]


def teach(batches: Iterable[Batch], teachers: Sequence[OnlineTeacher]) -> Iterator[Batch]:
    """The batches, each with the rows that the teachers give its views and captions.

    Args:
        batches: with pixels [B, H, W, 3] at every teacher's size.
        teachers: of names that no stored teacher has.
    """
    for batch in batches:
        rows = {teacher.name: _rows(batch, teacher) for teacher in teachers}
        yield replace(batch, stored={**batch.stored, **rows}) if rows else batch


def _rows(batch: Batch, teacher: OnlineTeacher) -> StoredRows:
    assert teacher.name not in batch.stored, teacher.name
    return StoredRows(
        image_BD=teacher.encode_image(batch.extra_BHWC[teacher.image_px]),
        text_BD=teacher.encode_text(batch.captions),
        synthetic_BD=teacher.encode_text(batch.synthetic_captions) if batch.synthetic_captions else None,
        logit_scale=teacher.logit_scale,
    )
