"""Rows that a loss compares: a process's own pairs, and those of all processes."""

# Shape suffixes: B pairs of this process, N pairs of all processes, D dimensions of an embedding.

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PairRows:
    """Unit-norm embeddings of pairs; row i of the texts belongs to row i of the images.

    Attributes:
        image_embed_BD: of this process's images [B, D].
        text_embed_BD: of its texts [B, D].
        all_image_embed_ND: of all processes' images [N, D], gathered with gradient; None where there is one process.
        all_text_embed_ND: of all processes' texts [N, D]; likewise.
        first: where this process's rows begin among those of all.
    """

    image_embed_BD: Tensor
    text_embed_BD: Tensor
    all_image_embed_ND: Tensor | None = None
    all_text_embed_ND: Tensor | None = None
    first: int = 0

    def images(self) -> Tensor:
        """All processes' images [N, D]."""
        return self.image_embed_BD if self.all_image_embed_ND is None else self.all_image_embed_ND

    def texts(self) -> Tensor:
        """All processes' texts [N, D]."""
        return self.text_embed_BD if self.all_text_embed_ND is None else self.all_text_embed_ND


@dataclass(frozen=True, kw_only=True)
class TeacherRows:
    """One teacher's embeddings of a batch.

    Attributes:
        pairs: unit-norm embeddings of the very views and captions that the student sees, of the teacher's own width.
        logit_scale: the teacher's own inverse temperature.
    """

    pairs: PairRows
    logit_scale: float
