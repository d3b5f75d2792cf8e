"""The total loss of reinforced training: contrastive and distillation, on ground-truth and synthetic captions."""

# Shape suffixes: B samples, C H W pixels, L tokens, D dimensions of an embedding.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.stream import Batch, StoredRows
from pocketclip.fit import Ranks, gather_rows, share_rows
from pocketclip.fit.ranks import Share
from pocketclip.losses import PairRows, TeacherRows, reinforced_loss

MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the terms of `(1 - lambda) CLIP + lambda KL`, on each kind of caption.

    The losses of the two kinds of caption are averaged with their weights: only the ratio of these counts.

    Attributes:
        distill_weight: lambda, in [0, 1]; 0 is plain CLIP training, and needs no reinforced shards.
        caption_weight: of the ground-truth captions' loss.
        synthetic_weight: of the synthetic captions' loss; needs `stream.synthetic`.
        average_logits: distil the softmax of the teachers' mean logits instead of the mean of the divergences.
        contrastive_weight: of all of the above, in a captioner's total (CoCa: 1).
        captioning_weight: of the captioning loss, in a captioner's total (CoCa: 2); 0 for a model without a decoder. It
            reads the one kind of caption that has a weight.
    """

    distill_weight: float = 0.0
    caption_weight: float = 1.0
    synthetic_weight: float = 0.0
    average_logits: bool = False
    contrastive_weight: float = 1.0
    captioning_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.distill_weight <= 1.0:
            raise ValueError(f"distill_weight must be in [0, 1], got {self.distill_weight}")
        if (
            min(self.caption_weight, self.synthetic_weight) < 0
            or self.caption_weight + self.synthetic_weight == 0
        ):
            raise ValueError("caption_weight and synthetic_weight must not be negative, nor both zero")
        if min(self.contrastive_weight, self.captioning_weight) < 0:
            raise ValueError("contrastive_weight and captioning_weight must not be negative")
        if self.captioning_weight > 0 and self.caption_weight > 0 and self.synthetic_weight > 0:
            raise ValueError(
                "a captioner reads one kind of caption a step: set caption_weight or synthetic_weight to 0"
            )
        if self.captioning_weight == 0 and self.contrastive_weight != 1:
            raise ValueError(
                "contrastive_weight weighs against captioning_weight: leave it 1 where that is 0"
            )


class Objective:
    """Loss terms of a batch, as `fit` asks for them.

    Args:
        config: weights.
        preprocess: the model's mean and standard deviation.
        device: where the model is; pixels travel as uint8 and are normalised there.
        ranks: the processes that train together; None trains alone.
        frozen: parts of the model that stay in evaluation mode.
        cut_texts: leave out the places after a batch's longest text. Where the text tower is causal no embedding
            changes; elsewhere padding is attended to, and embeddings would.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        *,
        preprocess: Preprocess,
        device: str,
        ranks: Ranks | None = None,
        frozen: Sequence[nn.Module] = (),
        cut_texts: bool = False,
    ) -> None:
        self.config = config
        self.device = device
        self.ranks = ranks or Ranks()
        self._frozen = frozen
        self._cut_texts = cut_texts
        self._mean_C11 = torch.tensor(preprocess.mean, device=device).view(3, 1, 1)
        self._std_C11 = torch.tensor(preprocess.std, device=device).view(3, 1, 1)

    @torch.no_grad()
    def prepare(self, model: nn.Module) -> None:
        """Before each step: the logit scale is bounded, and frozen parts are put to rest.

        CLIP's bound: a softmax sharper than 100 is unstable (Radford et al., 2021, section 2.5).

        The parameter itself is bounded, before each step. A clamp of the output would have no gradient above the
        bound: a scale that once went beyond could never come back.
        """
        log_scale = model.logit_scale
        assert isinstance(log_scale, Tensor)
        log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        for module in self._frozen:  # the loop has just put the whole model into training mode
            module.eval()

    def split(self, batch: Batch, *, parts: int) -> Sequence[Batch]:
        """`batch` in `parts` parts of nearly equal size, or as many as it has samples."""
        bounds = np.linspace(0, len(batch.keys), min(parts, len(batch.keys)) + 1).astype(int).tolist()
        return [batch.rows(start, stop) for start, stop in pairwise(bounds)]

    def encode(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """Embeddings of a batch.

        Args:
            model: a `Clip`: `model(image_BCHW, tokens_BL)` gives unit-norm embeddings and the logit scale.
            batch: from a stream.

        Returns:
            Those of the pictures [B, D], of each kind of caption [B, D], and the logit scale.
        """
        tokens_BL = np.concatenate([tokens_BL for _, tokens_BL, _ in self.sources(batch)])
        if self._cut_texts:
            tokens_BL = _cut(tokens_BL)
        output = model(self.pictures(batch), torch.from_numpy(tokens_BL).to(self.device))
        texts = output.text_embed_BD.split(len(batch.keys))
        return (output.image_embed_BD, *texts, output.logit_scale)

    def pictures(self, batch: Batch) -> Tensor:
        """A batch's pictures as the model takes them, float32 [B, C, H, W] on its device."""
        # A permuted view of BHWC is channels-last already, the faster layout for convolutions.
        pixels_BCHW = torch.from_numpy(batch.pixels_BHWC).to(self.device).permute(0, 3, 1, 2)
        return (pixels_BCHW.float() / 255.0 - self._mean_C11) / self._std_C11

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Mapping[str, Tensor]:
        """`loss` and its parts, each a scalar in nats.

        Args:
            outputs: of `encode`.
            batch: the same.
        """
        image_BD, *texts, logit_scale = outputs
        share = share_rows(len(image_BD), ranks=self.ranks, device=self.device)
        sources = self.sources(batch)
        total_weight = sum(weight for weight, _, _ in sources)
        loss = image_BD.new_zeros(())
        terms: dict[str, Tensor] = {}
        gathered_ND = gather_rows(image_BD, share=share)
        for (weight, _, kind), text_BD in zip(sources, texts, strict=True):
            rows = PairRows(
                image_embed_BD=image_BD,
                text_embed_BD=text_BD,
                all_image_embed_ND=gathered_ND,
                all_text_embed_ND=gather_rows(text_BD, share=share),
                first=share.first,
            )
            part = reinforced_loss(
                rows,
                logit_scale=logit_scale,
                teachers=self._teachers(batch, kind, share=share),
                distill_weight=self.config.distill_weight,
                average_logits=self.config.average_logits,
            )
            loss = loss + share.weight * weight / total_weight * part.loss
            if self.config.distill_weight < 1.0:
                terms[f"clip/{kind}"] = part.clip
            if self.config.distill_weight > 0.0:
                terms[f"distill/{kind}"] = part.distill
        return {"loss": loss, **terms, "logit_scale": logit_scale}

    def sources(self, batch: Batch) -> list[tuple[float, np.ndarray, str]]:
        """(weight, tokens [B, L], kind) of each kind of caption that counts."""
        sources: list[tuple[float, np.ndarray, str]] = []
        if self.config.caption_weight:
            sources.append((self.config.caption_weight, batch.tokens_BL, "caption"))
        if self.config.synthetic_weight:
            if batch.synthetic_BL is None:
                raise ValueError(
                    "synthetic_weight is set but no synthetic caption is read: set stream.synthetic"
                )
            sources.append((self.config.synthetic_weight, batch.synthetic_BL, "synthetic"))
        return sources

    def _teachers(self, batch: Batch, kind: str, *, share: Share) -> dict[str, TeacherRows]:
        if self.config.distill_weight == 0.0:
            return {}
        if not batch.stored:
            raise ValueError("distill_weight is set but no embeddings are read: set stream.replay")
        return {name: self._rows(rows, kind, share=share) for name, rows in batch.stored.items()}

    def _rows(self, rows: StoredRows, kind: str, *, share: Share) -> TeacherRows:
        text_BD = rows.synthetic_BD if kind == "synthetic" else rows.text_BD
        assert text_BD is not None
        own = [torch.from_numpy(part).to(self.device) for part in (rows.image_BD, text_BD)]
        everybodys = [gather_rows(part, share=share) for part in own]
        pairs = PairRows(
            image_embed_BD=own[0],
            text_embed_BD=own[1],
            all_image_embed_ND=everybodys[0],
            all_text_embed_ND=everybodys[1],
            first=share.first,
        )
        return TeacherRows(pairs=pairs, logit_scale=rows.logit_scale)


def _cut(tokens_BL: np.ndarray) -> np.ndarray:
    """Without the places that no text of the batch reaches, but for as many as make their number a multiple of 8.

    Few lengths: a compiler has to see each, and matrices of eights are what accelerators are quick at.
    """
    used_L = np.flatnonzero(tokens_BL.any(axis=0))  # zeros come after the end, which is not zero
    length = int(used_L[-1]) + 1
    return np.ascontiguousarray(tokens_BL[:, : -(-length // 8) * 8])
