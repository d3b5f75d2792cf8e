"""The total loss of reinforced training: contrastive and distillation, on ground-truth and synthetic captions."""

# Shape suffixes: B samples, C H W pixels, L tokens, D dimensions of an embedding.

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pocketclip.data.preprocess import Preprocess
from pocketclip.data.stream import Batch, StoredRows
from pocketclip.losses import LossTerms, PairRows, TeacherRows, reinforced_loss

MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the terms of `(1 - lambda) CLIP + lambda KL`, on each kind of caption.

    The losses of the two kinds of caption are averaged with their weights: only the ratio of these counts.

    Attributes:
        distill_weight: lambda, in [0, 1]; 0 is plain CLIP training, and needs no reinforced shards.
        caption_weight: of the ground-truth captions' loss.
        synthetic_weight: of the synthetic captions' loss; needs `stream.synthetic`.
    """

    distill_weight: float = 0.0
    caption_weight: float = 1.0
    synthetic_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.distill_weight <= 1.0:
            raise ValueError(f"distill_weight must be in [0, 1], got {self.distill_weight}")
        if (
            min(self.caption_weight, self.synthetic_weight) < 0
            or self.caption_weight + self.synthetic_weight == 0
        ):
            raise ValueError("caption_weight and synthetic_weight must not be negative, nor both zero")


class Objective:
    """Loss terms of a batch.

    Args:
        config: weights.
        preprocess: the model's mean and standard deviation.
        device: where the model is; pixels travel as uint8 and are normalised there.
    """

    def __init__(self, config: ObjectiveConfig, *, preprocess: Preprocess, device: str) -> None:
        self.config = config
        self.device = device
        self._mean_C11 = torch.tensor(preprocess.mean, device=device).view(3, 1, 1)
        self._std_C11 = torch.tensor(preprocess.std, device=device).view(3, 1, 1)

    def __call__(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """`loss` and its parts, each a scalar in nats.

        Args:
            model: a `Clip`: `model(image_BCHW, tokens_BL)` gives unit-norm embeddings and the logit scale.
            batch: from a stream.
        """
        _bound_scale(model)
        # A permuted view of BHWC is channels-last already, the faster layout for convolutions.
        pixels_BCHW = torch.from_numpy(batch.pixels_BHWC).to(self.device).permute(0, 3, 1, 2)
        image_BCHW = (pixels_BCHW.float() / 255.0 - self._mean_C11) / self._std_C11
        sources = self._sources(batch)
        tokens_L = torch.from_numpy(np.concatenate([tokens for _, tokens, _ in sources])).to(self.device)
        output = model(image_BCHW, tokens_L)
        texts = output.text_embed_BD.split(len(batch.keys))
        logit_scale = output.logit_scale
        terms: dict[str, Tensor] = {}
        total_weight = sum(weight for weight, _, _ in sources)
        loss = torch.zeros((), device=self.device)
        for (weight, _, kind), text_BD in zip(sources, texts, strict=True):
            part = self._part(output.image_embed_BD, text_BD, logit_scale, batch, kind)
            loss = loss + weight / total_weight * part.loss
            if self.config.distill_weight < 1.0:
                terms[f"clip/{kind}"] = part.clip
            if self.config.distill_weight > 0.0:
                terms[f"distill/{kind}"] = part.distill
        return {"loss": loss, **terms, "logit_scale": logit_scale}

    def _sources(self, batch: Batch) -> list[tuple[float, np.ndarray, str]]:
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

    def _part(
        self, image_BD: Tensor, text_BD: Tensor, logit_scale: Tensor, batch: Batch, kind: str
    ) -> LossTerms:
        weight = self.config.distill_weight
        if weight > 0.0 and not batch.stored:
            raise ValueError("distill_weight is set but no embeddings are read: set stream.replay")
        teachers = {name: self._rows(rows, kind) for name, rows in batch.stored.items()} if weight else {}
        rows = PairRows(image_embed_BD=image_BD, text_embed_BD=text_BD)
        return reinforced_loss(rows, logit_scale=logit_scale, teachers=teachers, distill_weight=weight)

    def _rows(self, rows: StoredRows, kind: str) -> TeacherRows:
        text_BD = rows.synthetic_BD if kind == "synthetic" else rows.text_BD
        assert text_BD is not None
        pairs = PairRows(
            image_embed_BD=torch.from_numpy(rows.image_BD).to(self.device),
            text_embed_BD=torch.from_numpy(text_BD).to(self.device),
        )
        return TeacherRows(pairs=pairs, logit_scale=rows.logit_scale)


@torch.no_grad()
def _bound_scale(model: nn.Module) -> None:
    """CLIP's bound: a softmax sharper than 100 is unstable (Radford et al., 2021, section 2.5).

    The parameter itself is bounded, before each step. A clamp of the output would have no gradient above the bound:
    a scale that once went beyond could never come back.
    """
    log_scale = model.logit_scale
    assert isinstance(log_scale, Tensor)
    log_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
