"""The total loss of a captioner: contrastive and captioning, CoCa's (arXiv 2205.01917, section 3.2)."""

# Shape suffixes: B samples, L tokens, V tokens of the vocabulary, C channels of a token, D dimensions of an embedding.

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pocketclip.data.stream import Batch
from pocketclip.fit import share_rows
from pocketclip.losses import caption_nll
from pocketclip.train.objective import Objective

PADDING = 0
"""The id that texts are filled up with. CLIP's exclamation mark has it too, and so is never learned nor written."""


def check_captioner(model: nn.Module, *, captioning_weight: float, name: str) -> None:
    """Makes sure that a model and an objective go together.

    Args:
        model: that is to be trained.
        captioning_weight: of the objective.
        name: of the recipe, for the message.

    Raises:
        ValueError: the model cannot write, or nobody teaches it to.
    """
    writes = hasattr(model, "decoder")
    if captioning_weight > 0 and not writes:
        raise ValueError(
            f"recipe {name}: objective.captioning_weight is {captioning_weight}, and the model has no decoder: take a "
            "captioner (coca_vit_l_14, pocketclip_tiny_captioner), or set the weight to 0"
        )
    if writes and captioning_weight == 0:
        raise ValueError(
            f"recipe {name}: the model is a captioner, and would not learn to write: set objective.captioning_weight "
            "(CoCa's is 2)"
        )


class CaptionerObjective(Objective):
    """Loss terms of a captioner's batch: `contrastive_weight` x what a CLIP has + `captioning_weight` x captioning.

    The captioning loss is the mean over all tokens of all processes, the end of a text included, in nats.
    """

    def encode(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """Embeddings of a batch, and how unlikely the model found its captions.

        Args:
            model: a captioner: `model(image_BCHW, tokens_BL, score=...)`.
            batch: from a stream.

        Returns:
            Those of the pictures [B, D] and of the captions [B, D], the captions' negative log-likelihoods [B], and
            the logit scale.
        """
        ((_, tokens_BL, _),) = self.sources(batch)
        output = model(self.pictures(batch), torch.from_numpy(tokens_BL).to(self.device), score=_nll)
        return output.image_embed_BD, output.text_embed_BD, output.score_B, output.logit_scale

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> Mapping[str, Tensor]:
        """`loss` and its parts, each a scalar in nats; `captioning/...` for a token.

        Args:
            outputs: of `encode`.
            batch: the same.
        """
        image_BD, text_BD, nll_B, logit_scale = outputs
        ((_, tokens_BL, kind),) = self.sources(batch)
        terms = dict(super().loss((image_BD, text_BD, logit_scale), batch))
        num_tokens = max(1, int((tokens_BL[:, 1:] != PADDING).sum()))
        share = share_rows(num_tokens, ranks=self.ranks, device=self.device)
        captioning = nll_B.sum() / num_tokens
        total = (
            self.config.contrastive_weight * terms.pop("loss")
            + self.config.captioning_weight * share.weight * captioning
        )
        return {"loss": total, f"captioning/{kind}": captioning, **terms}


def _nll(states_BLC: Tensor, head_VC: Tensor, labels_BL: Tensor) -> Tensor:
    return caption_nll(states_BLC, head_VC, labels_BL, padding=PADDING)
